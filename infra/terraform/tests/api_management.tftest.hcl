# API Management in front: on, in the private network with subscriptions, and the warning of Consumption.

mock_provider "azurerm" {
  override_resource {
    target          = azurerm_api_management.main
    override_during = plan
    values = {
      id          = "/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/rg-switchyard-dev/providers/Microsoft.ApiManagement/service/apim-switchyard-dev"
      gateway_url = "https://apim-switchyard-dev.azure-api.net"
    }
  }
}
mock_provider "azapi" {}

variables {
  subscription_id          = "00000000-0000-0000-0000-000000000001"
  api_management_publisher = { name = "Platform team", email = "platform@contoso.com" }
}

run "on_keys_and_streams_pass_through" {
  command = plan

  variables {
    api_management_enabled = true
  }

  assert {
    condition     = output.endpoint == "https://apim-switchyard-dev.azure-api.net"
    error_message = "Callers must be told API Management's address."
  }
  assert {
    condition     = strcontains(azurerm_api_management_api_policy.gateway[0].xml_content, "buffer-response=\"false\"") && strcontains(azurerm_api_management_api_policy.gateway[0].xml_content, "timeout=\"240\"")
    error_message = "Streams must pass unbuffered, for as long as Azure lets them."
  }
  assert {
    condition     = !strcontains(azurerm_api_management_api_policy.gateway[0].xml_content, "rate-limit")
    error_message = "There is no limit unless one was asked for."
  }
  assert {
    condition     = !azurerm_api_management_api.gateway[0].subscription_required && azurerm_api_management_api.gateway[0].subscription_key_parameter_names[0].header == "Ocp-Apim-Subscription-Key"
    error_message = "Callers send the gateway's own keys, and the header `api-key` stays theirs."
  }
  assert {
    condition     = length(azurerm_api_management_api_operation.gateway) == 15 && azurerm_api_management_api_operation.gateway["openai-post"].url_template == "/openai/*"
    error_message = "Every method of /v1 and /openai must pass, the API's description, and Prometheus."
  }
  assert {
    condition     = azurerm_api_management_api_diagnostic.gateway[0].http_correlation_protocol == "W3C" && length(azurerm_api_management_api_diagnostic.gateway[0].frontend_request) == 0 && length(azurerm_api_management_api_diagnostic.gateway[0].frontend_response) == 0
    error_message = "One trace through both, and never a body or a header in it."
  }
  assert {
    condition     = azurerm_role_assignment.api_management_telemetry[0].role_definition_name == "Monitoring Metrics Publisher" && contains(local.resource_providers_optional, "Microsoft.ApiManagement")
    error_message = "Telemetry is sent with an identity; the provider must be registered."
  }
}

run "in_the_private_network_with_limits_and_subscriptions" {
  command = plan

  variables {
    api_management_enabled               = true
    api_management_sku                   = "StandardV2_1"
    api_management_subscription_required = true
    api_management_calls_per_minute      = 600
    private_networking                   = true
    private_inbound                      = true
  }

  assert {
    condition     = azurerm_api_management.main[0].virtual_network_type == "External" && azurerm_subnet.api_management[0].delegation[0].service_delegation[0].name == "Microsoft.Web/serverFarms"
    error_message = "StandardV2 must join its own subnet."
  }
  assert {
    condition     = strcontains(azurerm_api_management_api_policy.gateway[0].xml_content, "<rate-limit-by-key calls=\"600\"")
    error_message = "The limit must be in the policy."
  }
  assert {
    condition     = length(azurerm_api_management_product_api.gateway) == 1 && azurerm_api_management_api.gateway[0].subscription_required
    error_message = "Subscriptions belong to a product of this API."
  }
  assert {
    condition     = !azurerm_api_management_api.health[0].subscription_required && azurerm_api_management_api.health[0].path == "v1/health" && azurerm_api_management_api_operation.health["live"].url_template == "/live"
    error_message = "Whoever looks whether the gateway is alive has no subscription."
  }
}

run "warns_of_consumption" {
  command = plan

  variables {
    api_management_enabled = true
    api_management_sku     = "Consumption_0"
  }

  expect_failures = [check.api_management_is_for_streams]
}
