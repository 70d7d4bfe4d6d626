# The optional parts together: all off, and what is refused. Each on its own is tested in the file of its name.

mock_provider "azurerm" {}
mock_provider "azapi" {}

variables {
  subscription_id = "00000000-0000-0000-0000-000000000001"
}

run "off_nothing_of_them_is_made" {
  command = plan

  assert {
    condition     = length(azurerm_virtual_network.main) == 0 && length(azurerm_private_endpoint.main) == 0 && length(azurerm_private_dns_zone.main) == 0
    error_message = "Without private_networking nothing of a network may be made."
  }
  assert {
    condition     = local.function_subnet_id == null && local.function_public_access == "Enabled" && local.public_access == "Enabled"
    error_message = "Without private_networking the function app stays outside and everything keeps its public address."
  }
  assert {
    condition     = output.virtual_network_id == null && output.outbound_address == null
    error_message = "Outputs of what is off must be null."
  }
  assert {
    condition     = length(azurerm_cdn_frontdoor_profile.main) == 0 && length(azurerm_cdn_frontdoor_firewall_policy.main) == 0
    error_message = "Without front_door_enabled nothing of it may be made."
  }
  assert {
    condition     = azapi_resource.function_app.body.properties.siteConfig.ipSecurityRestrictionsDefaultAction == "Allow" && output.endpoint == local.endpoint && output.front_door_endpoint == null
    error_message = "Without Front Door everybody may call the function app's own address."
  }
  assert {
    condition     = length(azurerm_managed_redis.main) == 0 && !contains(keys(local.settings_optional), "SWITCHYARD_REDIS") && length(output.extra_requirements) == 0
    error_message = "Without redis_enabled there is no Redis, no setting and nothing more in the package."
  }
  assert {
    condition     = length(azurerm_dashboard_grafana.main) == 0 && length(azurerm_role_assignment.grafana_reads) == 0 && length(azurerm_static_web_app.main) == 0
    error_message = "Off must make nothing."
  }
  assert {
    condition     = output.grafana_url == null && output.grafana_import_command == null && output.web_url == null && output.web_publish_command == null
    error_message = "Outputs of what is off must be null."
  }
  assert {
    condition     = length(local.cors_origins_optional) == 0 && !contains(keys(local.app_settings), "SWITCHYARD_CORS_ORIGINS")
    error_message = "No page may call the gateway unless it was named."
  }
  assert {
    condition     = length(azurerm_api_management.main) == 0 && length(azurerm_api_management_api_operation.gateway) == 0 && length(azurerm_user_assigned_identity.api_management) == 0
    error_message = "Without api_management_enabled nothing of it may be made."
  }
  assert {
    condition     = output.endpoint == local.endpoint && output.api_management_endpoint == null
    error_message = "Callers come to the function app."
  }
}

run "refuses_bad_values" {
  command = plan

  variables {
    network_address_space           = "10.0.0.0/26"
    linked_networks                 = { hub = "vnet-hub" }
    front_door_sku                  = "Classic"
    front_door_requests_per_minute  = 2.5
    front_door_firewall_mode        = "Off"
    front_door_health_probe_seconds = 0
    redis_sku                       = "Premium_P1"
    grafana_admins                  = ["somebody@example.com"]
    grafana_major_version           = "9"
    web_sku                         = "Dedicated"
    web_location                    = "swedencentral"
    api_management_sku              = "Consumption_1"
  }

  expect_failures = [
    var.network_address_space, var.linked_networks, var.front_door_sku, var.front_door_requests_per_minute,
    var.front_door_firewall_mode, var.front_door_health_probe_seconds, var.redis_sku, var.grafana_admins,
    var.grafana_major_version, var.web_sku, var.web_location, var.api_management_sku,
  ]
}

run "refuses_what_lacks_something_else" {
  command = plan

  variables {
    # No network.
    private_inbound        = true
    private_monitoring     = true
    fixed_outbound_address = true
    # Nobody who could sign in.
    grafana_enabled = true
    # Two addresses for callers, and a publisher that is nobody.
    front_door_enabled     = true
    api_management_enabled = true
  }

  expect_failures = [
    var.private_inbound, var.private_monitoring, var.fixed_outbound_address, var.grafana_admins, var.front_door_enabled,
    var.api_management_publisher,
  ]
}

run "refuses_front_door_before_an_app_it_cannot_reach" {
  command = plan

  variables {
    front_door_enabled = true
    private_networking = true
    private_inbound    = true
    # And a limit that this tier has not.
    api_management_sku              = "Consumption_0"
    api_management_calls_per_minute = 600
  }

  expect_failures = [var.front_door_private_link, var.api_management_calls_per_minute]
}

run "refuses_api_management_before_an_app_it_cannot_reach" {
  command = plan

  variables {
    api_management_enabled   = true
    api_management_publisher = { name = "Platform team", email = "platform@contoso.com" }
    private_networking       = true
    private_inbound          = true
  }

  expect_failures = [var.api_management_sku]
}

run "refuses_a_network_too_small_for_api_management" {
  command = plan

  variables {
    api_management_enabled   = true
    api_management_publisher = { name = "Platform team", email = "platform@contoso.com" }
    api_management_sku       = "StandardV2_1"
    private_networking       = true
    network_address_space    = "10.64.0.0/25"
  }

  expect_failures = [azurerm_subnet.api_management]
}
