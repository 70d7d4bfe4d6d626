# Private networking: on, and with each of its own options.

mock_provider "azurerm" {}
mock_provider "azapi" {}

variables {
  subscription_id = "00000000-0000-0000-0000-000000000001"
}

run "on_everything_has_a_private_address" {
  command = plan

  variables {
    private_networking = true
    redis_enabled      = true
  }

  assert {
    condition     = join(" ", keys(azurerm_private_endpoint.main)) == "blob queue redis scheduler table vault"
    error_message = "Storage (blobs, queues, tables), Key Vault, Redis and the task scheduler need an endpoint each."
  }
  assert {
    condition     = join(" ", keys(azurerm_private_endpoint.openai)) == join(" ", keys(azurerm_cognitive_account.openai)) && length(azurerm_private_endpoint.openai) > 0
    error_message = "Every model account needs an endpoint."
  }
  assert {
    condition     = alltrue([for endpoint in azurerm_private_endpoint.main : endpoint.private_service_connection[0].is_manual_connection == false])
    error_message = "Connections inside one subscription are approved by themselves."
  }
  assert {
    condition     = toset([for zone in azurerm_private_dns_zone.main : zone.name]) == toset(["privatelink.blob.core.windows.net", "privatelink.queue.core.windows.net", "privatelink.table.core.windows.net", "privatelink.vaultcore.azure.net", "privatelink.openai.azure.com", "privatelink.cognitiveservices.azure.com", "privatelink.services.ai.azure.com", "privatelink.durabletask.io", "privatelink.redis.azure.net"])
    error_message = "Each kind of endpoint needs its zone, and no other zone may be made."
  }
  assert {
    condition     = length(azurerm_private_dns_zone_virtual_network_link.main) == length(azurerm_private_dns_zone.main)
    error_message = "Every zone must be linked to the network, or its names lead to the public address."
  }
  assert {
    condition     = azurerm_subnet.functions[0].delegation[0].service_delegation[0].name == "Microsoft.App/environments" && !strcontains(azurerm_subnet.functions[0].name, "_")
    error_message = "Flex Consumption wants a subnet delegated to Microsoft.App/environments, with no underscore in its name."
  }
  assert {
    condition     = azurerm_subnet.functions[0].address_prefixes[0] == "10.64.0.0/25" && azurerm_subnet.endpoints[0].address_prefixes[0] == "10.64.0.128/26"
    error_message = "Half of the range goes to the function app, a quarter to the endpoints."
  }
  assert {
    condition     = azurerm_subnet.endpoints[0].private_endpoint_network_policies == "NetworkSecurityGroupEnabled"
    error_message = "Security groups must apply to private endpoints."
  }
  assert {
    condition     = !azurerm_storage_account.main.public_network_access_enabled && !azurerm_key_vault.main.public_network_access_enabled && alltrue([for account in azurerm_cognitive_account.openai : !account.public_network_access_enabled])
    error_message = "What has a private endpoint must have no public address."
  }
  assert {
    condition     = local.function_public_access == "Enabled" && length(azurerm_private_endpoint.inbound) == 0
    error_message = "Callers still come over the internet unless private_inbound says otherwise."
  }
  assert {
    condition     = contains(local.resource_providers_optional, "Microsoft.Network")
    error_message = "An empty subscription must register Microsoft.Network."
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

run "inbound_monitoring_and_address" {
  command = plan

  variables {
    private_networking     = true
    durable_backend        = "AzureStorage"
    private_inbound        = true
    private_monitoring     = true
    fixed_outbound_address = true
    network_address_space  = "172.20.8.0/23"
    linked_networks = {
      hub = "/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/rg-hub/providers/Microsoft.Network/virtualNetworks/vnet-hub"
    }
  }

  assert {
    condition     = local.function_public_access == "Disabled" && azurerm_private_endpoint.inbound[0].private_service_connection[0].subresource_names[0] == "sites"
    error_message = "Callers must come through the function app's endpoint only."
  }
  assert {
    condition     = length(azurerm_monitor_private_link_scoped_service.main) == 2 && contains(keys(azurerm_private_endpoint.main), "monitor")
    error_message = "The workspace and Application Insights belong to the scope, and the scope needs an endpoint."
  }
  assert {
    condition     = length(azurerm_private_dns_zone_virtual_network_link.main) == 2 * length(azurerm_private_dns_zone.main)
    error_message = "Every zone must be linked to both networks."
  }
  assert {
    condition     = length(azurerm_subnet_nat_gateway_association.functions) == 1 && !azurerm_subnet.functions[0].default_outbound_access_enabled
    error_message = "With a fixed address the NAT gateway is the only way out."
  }
  assert {
    condition     = azurerm_subnet.functions[0].address_prefixes[0] == "172.20.8.0/24"
    error_message = "The subnets follow the network's range."
  }
  assert {
    condition     = !contains(keys(azurerm_private_endpoint.main), "scheduler") && !contains(keys(azurerm_private_dns_zone.main), "scheduler")
    error_message = "There is no scheduler to reach."
  }
}
