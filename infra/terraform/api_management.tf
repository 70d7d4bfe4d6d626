# Azure API Management in front of the function app, off unless var.api_management_enabled. Callers send the gateway's own keys,
# which pass through untouched; streams pass unbuffered.

locals {
  api_management_networked = var.api_management_enabled && var.private_networking && startswith(var.api_management_sku, "StandardV2_")

  # Every path of the gateway with every method it knows; OPTIONS is a browser asking first. The API's own description stays at
  # /openapi.json: a copy here would be one more thing to keep up with.
  api_management_paths   = { v1 = "/v1/*", openai = "/openai/*" }
  api_management_methods = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
  api_management_operations = !var.api_management_enabled ? {} : merge(
    merge([
      for key, path in local.api_management_paths : {
        for method in local.api_management_methods : "${key}-${lower(method)}" => { method = method, path = path }
      }
    ]...),
    {
      description = { method = "GET", path = "/openapi.json" }
      docs        = { method = "GET", path = "/docs" }
      prometheus  = { method = "GET", path = "/metrics" }
    },
  )
}

check "api_management_is_for_streams" {
  assert {
    condition     = !(var.api_management_enabled && startswith(var.api_management_sku, "Consumption"))
    error_message = "API Management's Consumption tier ends every request after 30 seconds and buffers answers: streams and long answers fail. Use BasicV2_1 or StandardV2_1 for more than a trial."
  }
}

# Its own identity: it may send telemetry, and nothing else.
resource "azurerm_user_assigned_identity" "api_management" {
  count = var.api_management_enabled ? 1 : 0

  name                = "id-${local.name}-apim"
  resource_group_name = azurerm_resource_group.main.name
  location            = azurerm_resource_group.main.location
  tags                = local.tags
}

resource "azurerm_role_assignment" "api_management_telemetry" {
  count = var.api_management_enabled ? 1 : 0

  scope                = azurerm_application_insights.main.id
  role_definition_name = "Monitoring Metrics Publisher"
  principal_id         = azurerm_user_assigned_identity.api_management[0].principal_id
  principal_type       = "ServicePrincipal"
}

resource "azurerm_subnet" "api_management" {
  count = local.api_management_networked ? 1 : 0

  name                            = "api-management"
  resource_group_name             = azurerm_resource_group.main.name
  virtual_network_name            = azurerm_virtual_network.main[0].name
  address_prefixes                = [local.subnet_ranges[2]]
  default_outbound_access_enabled = true # The service talks to Azure's own endpoints from here.

  delegation {
    name = "api-management"

    service_delegation {
      name    = "Microsoft.Web/serverFarms"
      actions = ["Microsoft.Network/virtualNetworks/subnets/action"]
    }
  }

  lifecycle {
    precondition {
      condition     = tonumber(split("/", local.subnet_ranges[2])[1]) <= 27
      error_message = "API Management's subnet, an eighth of network_address_space, needs 32 addresses: give network_address_space a /24 or more."
    }
  }
}

# StandardV2 joins a subnet for its outgoing calls only, and wants a security group on it; Azure's defaults are what it needs.
resource "azurerm_network_security_group" "api_management" {
  count = local.api_management_networked ? 1 : 0

  name                = "nsg-${local.name}-apim"
  resource_group_name = azurerm_resource_group.main.name
  location            = azurerm_resource_group.main.location
  tags                = local.tags
}

resource "azurerm_subnet_network_security_group_association" "api_management" {
  count = local.api_management_networked ? 1 : 0

  subnet_id                 = azurerm_subnet.api_management[0].id
  network_security_group_id = azurerm_network_security_group.api_management[0].id
}

resource "azurerm_api_management" "main" {
  # checkov:skip=CKV_AZURE_174:It is the public address callers are given.
  count = var.api_management_enabled ? 1 : 0

  name                 = "apim-${local.name}-${local.suffix}"
  resource_group_name  = azurerm_resource_group.main.name
  location             = azurerm_resource_group.main.location
  publisher_name       = var.api_management_publisher.name
  publisher_email      = var.api_management_publisher.email
  sku_name             = var.api_management_sku
  virtual_network_type = local.api_management_networked ? "External" : "None"
  tags                 = local.tags

  identity {
    type         = "UserAssigned"
    identity_ids = [azurerm_user_assigned_identity.api_management[0].id]
  }

  dynamic "virtual_network_configuration" {
    for_each = azurerm_subnet.api_management
    content {
      subnet_id = virtual_network_configuration.value.id
    }
  }

  depends_on = [azurerm_subnet_network_security_group_association.api_management]
}

resource "azurerm_api_management_api" "gateway" {
  count = var.api_management_enabled ? 1 : 0

  name                  = "gateway"
  resource_group_name   = azurerm_resource_group.main.name
  api_management_name   = azurerm_api_management.main[0].name
  revision              = "1"
  display_name          = "Switchyard"
  path                  = "" # At the root, so that clients change the host name and nothing else.
  protocols             = ["https"]
  service_url           = local.endpoint
  subscription_required = var.api_management_subscription_required

  # Not `api-key`: that is how Azure OpenAI's clients send the gateway's key.
  subscription_key_parameter_names {
    header = "Ocp-Apim-Subscription-Key"
    query  = "subscription-key"
  }
}

resource "azurerm_api_management_api_operation" "gateway" {
  for_each = local.api_management_operations

  operation_id        = each.key
  api_name            = azurerm_api_management_api.gateway[0].name
  api_management_name = azurerm_api_management.main[0].name
  resource_group_name = azurerm_resource_group.main.name
  display_name        = "${each.value.method} ${each.value.path}"
  method              = each.value.method
  url_template        = each.value.path
}

resource "azurerm_api_management_api_policy" "gateway" {
  count = var.api_management_enabled ? 1 : 0

  api_name            = azurerm_api_management_api.gateway[0].name
  api_management_name = azurerm_api_management.main[0].name
  resource_group_name = azurerm_resource_group.main.name
  xml_content = templatefile("${path.module}/policies/gateway.xml.tftpl", {
    calls_per_minute = var.api_management_calls_per_minute
  })
}

# A subscription belongs to a product: without one nobody could be given a key.
resource "azurerm_api_management_product" "gateway" {
  count = var.api_management_enabled && var.api_management_subscription_required ? 1 : 0

  product_id            = "gateway"
  api_management_name   = azurerm_api_management.main[0].name
  resource_group_name   = azurerm_resource_group.main.name
  display_name          = "Switchyard"
  description           = "Language models behind one endpoint."
  published             = true
  subscription_required = true
  approval_required     = true
  subscriptions_limit   = 10
}

resource "azurerm_api_management_product_api" "gateway" {
  count = var.api_management_enabled && var.api_management_subscription_required ? 1 : 0

  product_id          = azurerm_api_management_product.gateway[0].product_id
  api_name            = azurerm_api_management_api.gateway[0].name
  api_management_name = azurerm_api_management.main[0].name
  resource_group_name = azurerm_resource_group.main.name
}

# Who asks whether the gateway is alive (`make deploy`, a probe) has no subscription: this path is open, as it is at the gateway
# itself, and the longest path of an API wins. What is below it is for the gateway's administrators, who send their key.
resource "azurerm_api_management_api" "health" {
  count = var.api_management_enabled && var.api_management_subscription_required ? 1 : 0

  name                  = "health"
  resource_group_name   = azurerm_resource_group.main.name
  api_management_name   = azurerm_api_management.main[0].name
  revision              = "1"
  display_name          = "Switchyard's health"
  path                  = "v1/health"
  protocols             = ["https"]
  service_url           = "${local.endpoint}/v1/health"
  subscription_required = false
}

resource "azurerm_api_management_api_operation" "health" {
  for_each = length(azurerm_api_management_api.health) == 0 ? {} : { live = "/live", report = "/" }

  operation_id        = each.key
  api_name            = azurerm_api_management_api.health[0].name
  api_management_name = azurerm_api_management.main[0].name
  resource_group_name = azurerm_resource_group.main.name
  display_name        = "GET /v1/health${each.value}"
  method              = "GET"
  url_template        = each.value
}

resource "azurerm_api_management_logger" "telemetry" {
  count = var.api_management_enabled ? 1 : 0

  name                = "telemetry"
  api_management_name = azurerm_api_management.main[0].name
  resource_group_name = azurerm_resource_group.main.name
  resource_id         = azurerm_application_insights.main.id

  application_insights {
    connection_string  = azurerm_application_insights.main.connection_string
    identity_client_id = azurerm_user_assigned_identity.api_management[0].client_id
  }

  depends_on = [azurerm_role_assignment.api_management_telemetry]
}

# W3C, so that API Management's part and the gateway's are one trace. No bodies and no headers: prompts and keys are in them, and
# to log a body is to hold a stream back.
resource "azurerm_api_management_api_diagnostic" "gateway" {
  count = var.api_management_enabled ? 1 : 0

  identifier                = "applicationinsights"
  api_name                  = azurerm_api_management_api.gateway[0].name
  api_management_name       = azurerm_api_management.main[0].name
  resource_group_name       = azurerm_resource_group.main.name
  api_management_logger_id  = azurerm_api_management_logger.telemetry[0].id
  always_log_errors         = true
  http_correlation_protocol = "W3C"
  log_client_ip             = false
  sampling_percentage       = 100
  verbosity                 = "error"
}
