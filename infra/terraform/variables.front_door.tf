variable "front_door_enabled" {
  type        = bool
  default     = false
  nullable    = false
  description = "Put Azure Front Door with a web application firewall in front; the function app then refuses whoever comes by another way."

  validation {
    condition     = !(var.front_door_enabled && var.api_management_enabled)
    error_message = "Choose front_door_enabled or api_management_enabled: both would be the gateway's public address."
  }
}

variable "front_door_sku" {
  type        = string
  default     = "Standard"
  nullable    = false
  description = "Standard, or Premium: the managed rule sets, and a private link to the function app."

  validation {
    condition     = contains(["Standard", "Premium"], var.front_door_sku)
    error_message = "front_door_sku must be Standard or Premium."
  }
}

variable "front_door_requests_per_minute" {
  type        = number
  default     = 3000
  nullable    = false
  description = "Requests a minute from one client address at one Front Door location, above which the firewall refuses. Many callers may share an address: limits of keys and projects are the gateway's own."

  validation {
    condition     = var.front_door_requests_per_minute >= 10 && floor(var.front_door_requests_per_minute) == var.front_door_requests_per_minute
    error_message = "front_door_requests_per_minute must be a whole number from 10."
  }
}

variable "front_door_firewall_mode" {
  type        = string
  default     = "Prevention"
  nullable    = false
  description = "Prevention refuses; Detection only logs what it would refuse."

  validation {
    condition     = contains(["Prevention", "Detection"], var.front_door_firewall_mode)
    error_message = "front_door_firewall_mode must be Prevention or Detection."
  }
}

variable "front_door_private_link" {
  type        = bool
  default     = false
  nullable    = false
  description = "Reach the function app over Private Link (Premium). Its connection must be approved once: see the output front_door_approval_command."

  validation {
    condition     = !var.front_door_private_link || (var.front_door_enabled && var.front_door_sku == "Premium")
    error_message = "front_door_private_link needs front_door_enabled = true and front_door_sku = \"Premium\"."
  }
  validation {
    condition     = !(var.front_door_enabled && var.private_inbound) || var.front_door_private_link
    error_message = "With private_inbound the function app has no public address: Front Door reaches it only with front_door_private_link = true."
  }
}

variable "front_door_private_link_location" {
  type        = string
  default     = null
  description = "Region of Front Door's end of the private link, where var.location has none; the nearest that Front Door lists."
}

variable "front_door_health_probe_seconds" {
  type        = number
  default     = null
  description = "Seconds between probes of /v1/health/live, from each of Front Door's locations. Unset: none. There is one origin, so a probe changes nothing, and a hundred locations that probe would keep instances running day and night."

  validation {
    condition     = var.front_door_health_probe_seconds == null || try(var.front_door_health_probe_seconds >= 5 && var.front_door_health_probe_seconds <= 255, false)
    error_message = "front_door_health_probe_seconds must be from 5 to 255, or null for no probes."
  }
}
