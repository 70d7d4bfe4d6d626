# Redis for rate limits: off, on, private, and bad values.

mock_provider "azurerm" {
  override_resource {
    target          = azurerm_user_assigned_identity.app
    override_during = plan
    values = {
      id           = "/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/rg-switchyard-dev/providers/Microsoft.ManagedIdentity/userAssignedIdentities/id-switchyard-dev"
      principal_id = "aaaaaaaa-1111-2222-3333-444444444444"
      client_id    = "bbbbbbbb-1111-2222-3333-444444444444"
    }
  }
  override_resource {
    target          = azurerm_managed_redis.main
    override_during = plan
    values = {
      id       = "/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/rg-switchyard-dev/providers/Microsoft.Cache/redisEnterprise/redis-switchyard-dev"
      hostname = "redis-switchyard-dev.swedencentral.redis.azure.net"
      default_database = {
        port = 10000
      }
    }
  }
}
mock_provider "azapi" {}

variables {
  subscription_id = "00000000-0000-0000-0000-000000000001"
}

run "off_limits_are_in_tables" {
  command = plan

  assert {
    condition     = length(azurerm_managed_redis.main) == 0 && !contains(keys(local.settings_optional), "SWITCHYARD_REDIS") && length(output.extra_requirements) == 0
    error_message = "Without redis_enabled there is no Redis, no setting and nothing more in the package."
  }
}

run "on_without_a_key" {
  command = plan

  variables {
    redis_enabled = true
  }

  assert {
    condition     = local.app_settings["SWITCHYARD_REDIS"] == "rediss://aaaaaaaa-1111-2222-3333-444444444444@redis-switchyard-dev.swedencentral.redis.azure.net:10000/0"
    error_message = "The setting names the identity as user, and holds no password."
  }
  assert {
    condition     = !azurerm_managed_redis.main[0].default_database[0].access_keys_authentication_enabled && azurerm_managed_redis.main[0].default_database[0].client_protocol == "Encrypted"
    error_message = "Redis must refuse access keys and plain text."
  }
  assert {
    condition     = azurerm_managed_redis.main[0].default_database[0].clustering_policy == "EnterpriseCluster"
    error_message = "The client speaks to one address; it is no cluster client."
  }
  assert {
    condition     = azurerm_managed_redis_access_policy_assignment.app[0].object_id == "aaaaaaaa-1111-2222-3333-444444444444"
    error_message = "The app's identity must be a user of Redis."
  }
  assert {
    condition     = join(" ", output.extra_requirements) == "requirements-redis.txt" && fileexists("${path.module}/../../requirements-redis.txt")
    error_message = "The package must contain the library of Redis."
  }
  assert {
    condition     = azurerm_managed_redis.main[0].public_network_access == "Enabled" && contains(local.resource_providers_optional, "Microsoft.Cache")
    error_message = "Redis is public, behind identities, unless the network is private; its provider must be registered."
  }
}

run "private" {
  command = plan

  variables {
    redis_enabled      = true
    private_networking = true
  }

  assert {
    condition     = azurerm_managed_redis.main[0].public_network_access == "Disabled" && azurerm_private_endpoint.main["redis"].private_service_connection[0].subresource_names[0] == "redisEnterprise"
    error_message = "In a private network Redis is reached over its endpoint only."
  }
  assert {
    condition     = azurerm_private_dns_zone.main["redis"].name == "privatelink.redis.azure.net" && contains(azurerm_network_security_rule.endpoints_tls[0].destination_port_ranges, "10000")
    error_message = "Redis needs its zone and its port."
  }
}

run "refuses_another_sku" {
  command = plan

  variables {
    redis_enabled = true
    redis_sku     = "Premium_P1"
  }

  expect_failures = [var.redis_sku]
}
