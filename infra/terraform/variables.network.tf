variable "private_networking" {
  type        = bool
  default     = false
  nullable    = false
  description = "Keep the platform's own traffic in a virtual network: the function app joins it, and storage, Key Vault, the model accounts, the task scheduler and Redis are reached over private endpoints only, their public network access off."
}

variable "network_address_space" {
  type        = string
  default     = "10.64.0.0/24"
  nullable    = false
  description = "Address range of the virtual network, /16 to /25. Half goes to the function app, a quarter to private endpoints, an eighth to API Management. Change it before the first apply if it overlaps with networks you will peer."

  validation {
    condition = (
      can(cidrnetmask(var.network_address_space)) &&
      try(cidrsubnet(var.network_address_space, 0, 0) == var.network_address_space, false) &&
      try(tonumber(split("/", var.network_address_space)[1]) >= 16 && tonumber(split("/", var.network_address_space)[1]) <= 25, false)
    )
    error_message = "network_address_space must be an IPv4 range from /16 to /25 that begins with its first address, such as 10.64.0.0/24: the function app's subnet needs 64 addresses at least."
  }
}

variable "private_inbound" {
  type        = bool
  default     = false
  nullable    = false
  description = "Callers, too, come through a private endpoint only; the function app's public address is closed. Then `make deploy` works only from a machine that reaches the virtual network."

  validation {
    condition     = !var.private_inbound || var.private_networking
    error_message = "private_inbound needs private_networking = true: there is no virtual network to come from."
  }
}

variable "private_monitoring" {
  type        = bool
  default     = false
  nullable    = false
  description = "Send telemetry through an Azure Monitor private link scope. The portal can still query it from anywhere. One scope for each DNS realm: leave it off in a network that already has one."

  validation {
    condition     = !var.private_monitoring || var.private_networking
    error_message = "private_monitoring needs private_networking = true."
  }
}

variable "fixed_outbound_address" {
  type        = bool
  default     = false
  nullable    = false
  description = "Leave the virtual network through a NAT gateway, so that outside providers can allow one address (output `outbound_address`)."

  validation {
    condition     = !var.fixed_outbound_address || var.private_networking
    error_message = "fixed_outbound_address needs private_networking = true: the NAT gateway belongs to the virtual network."
  }
}

variable "linked_networks" {
  type        = map(string)
  default     = {}
  nullable    = false
  description = "Other virtual networks, name => resource id, that shall resolve the private endpoints' names: a hub with a VPN gateway, the network of build agents. Peer them yourself, both ways."

  validation {
    condition = alltrue([
      for id in values(var.linked_networks) : can(regex("^/subscriptions/[^/]+/resourceGroups/[^/]+/providers/Microsoft.Network/virtualNetworks/[^/]+$", id))
    ])
    error_message = "linked_networks must hold resource ids: /subscriptions/…/resourceGroups/…/providers/Microsoft.Network/virtualNetworks/NAME."
  }
  validation {
    condition     = length(var.linked_networks) == 0 || var.private_networking
    error_message = "linked_networks needs private_networking = true: without it there are no private names to resolve."
  }
  validation {
    condition     = alltrue([for name in keys(var.linked_networks) : can(regex("^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$", name)) && name != "main"])
    error_message = "The names in linked_networks become parts of resource names: lower-case letters, digits and dashes between them, at most 40; \"main\" is this installation's own network."
  }
}
