# The virtual network, off unless var.private_networking: a subnet for the function app's outbound calls, one for private endpoints.

locals {
  # Halves, quarters, eighths: 10.64.0.0/24 gives .0/25 to the function app, .128/26 to private endpoints, .192/27 to API Management.
  subnet_ranges = cidrsubnets(var.network_address_space, 1, 2, 3)

  # What the function app's virtualNetworkSubnetId is: null when it stays outside. On Flex Consumption all outbound traffic then
  # goes through the subnet, the host's own calls to storage too; there is no setting for that, and the app settings that other
  # plans need for it are refused. Taken from what is last attached to the subnet: the app joins it when it is finished, for Azure
  # refuses two changes of one subnet at a time.
  function_subnet_id = (
    var.fixed_outbound_address ? one(azurerm_subnet_nat_gateway_association.functions[*].subnet_id)
    : one(azurerm_subnet_network_security_group_association.functions[*].subnet_id)
  )

  # The function app's publicNetworkAccess.
  function_public_access = var.private_inbound ? "Disabled" : "Enabled"
}

resource "azurerm_virtual_network" "main" {
  count = var.private_networking ? 1 : 0

  name                = "vnet-${local.name}"
  resource_group_name = azurerm_resource_group.main.name
  location            = azurerm_resource_group.main.location
  address_space       = [var.network_address_space]
  tags                = local.tags
}

resource "azurerm_subnet" "functions" {
  count = var.private_networking ? 1 : 0

  # Flex Consumption refuses names with underscores, and wants the subnet for itself.
  name                 = "functions"
  resource_group_name  = azurerm_resource_group.main.name
  virtual_network_name = azurerm_virtual_network.main[0].name
  address_prefixes     = [local.subnet_ranges[0]]

  # Outside providers are called from here. Networks made with newer API versions are private by default, so it is said.
  default_outbound_access_enabled = !var.fixed_outbound_address

  delegation {
    name = "flex-consumption"

    service_delegation {
      name    = "Microsoft.App/environments"
      actions = ["Microsoft.Network/virtualNetworks/subnets/join/action"]
    }
  }
}

resource "azurerm_subnet" "endpoints" {
  count = var.private_networking ? 1 : 0

  name                 = "endpoints"
  resource_group_name  = azurerm_resource_group.main.name
  virtual_network_name = azurerm_virtual_network.main[0].name
  address_prefixes     = [local.subnet_ranges[1]]

  default_outbound_access_enabled = false
  # Without this the security group is not applied to private endpoints.
  private_endpoint_network_policies = "NetworkSecurityGroupEnabled"
}

# Only outgoing: the platform's front ends deliver requests by another way, so nothing has to come in through this subnet.
# Outgoing traffic keeps Azure's defaults: the platform needs more ports than it documents, and a wrong rule kills the app at start.
resource "azurerm_network_security_group" "functions" {
  count = var.private_networking ? 1 : 0

  name                = "nsg-${local.name}-functions"
  resource_group_name = azurerm_resource_group.main.name
  location            = azurerm_resource_group.main.location
  tags                = local.tags
}

resource "azurerm_network_security_rule" "functions_no_internet" {
  count = var.private_networking ? 1 : 0

  name                        = "refuse-internet"
  resource_group_name         = azurerm_resource_group.main.name
  network_security_group_name = azurerm_network_security_group.functions[0].name
  priority                    = 4000
  direction                   = "Inbound"
  access                      = "Deny"
  protocol                    = "*"
  source_address_prefix       = "Internet"
  source_port_range           = "*"
  destination_address_prefix  = "*"
  destination_port_range      = "*"
}

resource "azurerm_network_security_group" "endpoints" {
  count = var.private_networking ? 1 : 0

  name                = "nsg-${local.name}-endpoints"
  resource_group_name = azurerm_resource_group.main.name
  location            = azurerm_resource_group.main.location
  tags                = local.tags
}

resource "azurerm_network_security_rule" "endpoints_tls" {
  count = var.private_networking ? 1 : 0

  name                        = "allow-tls-from-network"
  resource_group_name         = azurerm_resource_group.main.name
  network_security_group_name = azurerm_network_security_group.endpoints[0].name
  priority                    = 100
  direction                   = "Inbound"
  access                      = "Allow"
  protocol                    = "Tcp"
  source_address_prefix       = "VirtualNetwork" # Peered and on-premises ranges are part of this tag.
  source_port_range           = "*"
  destination_address_prefix  = local.subnet_ranges[1]
  destination_port_ranges     = var.redis_enabled ? ["443", "10000"] : ["443"]
}

resource "azurerm_network_security_rule" "endpoints_nothing_else" {
  count = var.private_networking ? 1 : 0

  name                        = "refuse-the-rest"
  resource_group_name         = azurerm_resource_group.main.name
  network_security_group_name = azurerm_network_security_group.endpoints[0].name
  priority                    = 4000
  direction                   = "Inbound"
  access                      = "Deny"
  protocol                    = "*"
  source_address_prefix       = "*"
  source_port_range           = "*"
  destination_address_prefix  = "*"
  destination_port_range      = "*"
}

resource "azurerm_subnet_network_security_group_association" "functions" {
  count = var.private_networking ? 1 : 0

  subnet_id                 = azurerm_subnet.functions[0].id
  network_security_group_id = azurerm_network_security_group.functions[0].id
}

resource "azurerm_subnet_network_security_group_association" "endpoints" {
  count = var.private_networking ? 1 : 0

  subnet_id                 = azurerm_subnet.endpoints[0].id
  network_security_group_id = azurerm_network_security_group.endpoints[0].id
}

# ---- one address towards outside providers ----

resource "azurerm_public_ip" "outbound" {
  count = var.fixed_outbound_address ? 1 : 0

  name                = "pip-${local.name}-outbound"
  resource_group_name = azurerm_resource_group.main.name
  location            = azurerm_resource_group.main.location
  allocation_method   = "Static"
  sku                 = "Standard"
  tags                = local.tags
}

resource "azurerm_nat_gateway" "main" {
  count = var.fixed_outbound_address ? 1 : 0

  name                = "ng-${local.name}"
  resource_group_name = azurerm_resource_group.main.name
  location            = azurerm_resource_group.main.location
  sku_name            = "Standard"
  tags                = local.tags
}

resource "azurerm_nat_gateway_public_ip_association" "main" {
  count = var.fixed_outbound_address ? 1 : 0

  nat_gateway_id       = azurerm_nat_gateway.main[0].id
  public_ip_address_id = azurerm_public_ip.outbound[0].id
}

resource "azurerm_subnet_nat_gateway_association" "functions" {
  count = var.fixed_outbound_address ? 1 : 0

  subnet_id = azurerm_subnet_network_security_group_association.functions[0].subnet_id # After it, for the same reason.
  # After it got its address, which is all there is towards the internet: the function app waits for this association.
  nat_gateway_id = azurerm_nat_gateway_public_ip_association.main[0].nat_gateway_id
}
