# Front Door and its firewall: Standard, and Premium with a private link.

mock_provider "azurerm" {
  # Known when planning, so that what is made of it can be looked at.
  override_resource {
    target          = azurerm_cdn_frontdoor_profile.main
    override_during = plan
    values = {
      id            = "/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/rg-switchyard-dev/providers/Microsoft.Cdn/profiles/afd-switchyard-dev"
      resource_guid = "11111111-2222-3333-4444-555555555555"
    }
  }
  override_resource {
    target          = azurerm_cdn_frontdoor_endpoint.main
    override_during = plan
    values = {
      id        = "/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/rg-switchyard-dev/providers/Microsoft.Cdn/profiles/afd-switchyard-dev/afdEndpoints/switchyard-dev"
      host_name = "switchyard-dev-abc.a01.azurefd.net"
    }
  }
}
mock_provider "azapi" {}

variables {
  subscription_id = "00000000-0000-0000-0000-000000000001"
}

run "standard_limits_clients_and_closes_the_side_door" {
  command = plan

  variables {
    front_door_enabled             = true
    front_door_requests_per_minute = 1200
  }

  assert {
    condition     = output.endpoint == "https://switchyard-dev-abc.a01.azurefd.net"
    error_message = "Callers must be told Front Door's address."
  }
  assert {
    condition     = local.ip_restrictions_optional[0].ipAddress == "AzureFrontDoor.Backend" && local.ip_restrictions_optional[0].headers["x-azure-fdid"][0] == "11111111-2222-3333-4444-555555555555"
    error_message = "Only this Front Door may call the function app."
  }
  assert {
    condition     = azapi_resource.function_app.body.properties.siteConfig.ipSecurityRestrictionsDefaultAction == "Deny" && length(azapi_resource.function_app.body.properties.siteConfig.ipSecurityRestrictions) == 1
    error_message = "Everybody else must be refused by the function app."
  }
  assert {
    condition     = azurerm_cdn_frontdoor_profile.main[0].response_timeout_seconds == 240 && length(azurerm_cdn_frontdoor_route.main[0].cache) == 0
    error_message = "Streams need the longest time there is, and no cache."
  }
  assert {
    condition     = azurerm_cdn_frontdoor_firewall_policy.main[0].custom_rule[0].rate_limit_threshold == 1200 && length(azurerm_cdn_frontdoor_firewall_policy.main[0].managed_rule) == 0
    error_message = "Standard limits each client, and has no managed rules."
  }
  assert {
    condition     = !azurerm_cdn_frontdoor_firewall_policy.main[0].request_body_check_enabled
    error_message = "Prompts may hold anything: the firewall must not judge bodies."
  }
  assert {
    condition     = jsondecode(base64decode(azurerm_cdn_frontdoor_firewall_policy.main[0].custom_block_response_body)).error.message != "" && azurerm_cdn_frontdoor_firewall_policy.main[0].custom_block_response_status_code == 403
    error_message = "A refusal must have the form of OpenAI's errors."
  }
  assert {
    condition     = length(azurerm_cdn_frontdoor_origin_group.main[0].health_probe) == 0
    error_message = "Probes from every location would keep instances running: none unless asked for."
  }
  assert {
    condition     = azurerm_cdn_frontdoor_origin.main[0].host_name == "${local.function_app_name}.azurewebsites.net"
    error_message = "The origin is the function app."
  }
}

run "premium_with_rules_probe_and_private_link" {
  command = plan

  variables {
    front_door_enabled              = true
    front_door_sku                  = "Premium"
    front_door_private_link         = true
    front_door_health_probe_seconds = 100
    private_networking              = true
    private_inbound                 = true
  }

  assert {
    condition     = azurerm_cdn_frontdoor_firewall_policy.main[0].managed_rule[0].type == "Microsoft_DefaultRuleSet"
    error_message = "Premium has the managed rules."
  }
  assert {
    condition     = azurerm_cdn_frontdoor_origin.main[0].private_link[0].target_type == "sites" && azurerm_cdn_frontdoor_origin.main[0].certificate_name_check_enabled
    error_message = "The function app is reached over Private Link."
  }
  assert {
    condition     = azurerm_cdn_frontdoor_origin_group.main[0].health_probe[0].path == "/v1/health/live" && azurerm_cdn_frontdoor_origin_group.main[0].health_probe[0].request_type == "GET"
    error_message = "The probe asks for liveness, which costs nothing and needs no key."
  }
  assert {
    condition     = contains(local.resource_providers_optional, "Microsoft.Cdn")
    error_message = "An empty subscription must register Microsoft.Cdn."
  }
}
