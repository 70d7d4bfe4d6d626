# Private addresses for what the function app calls, and the DNS zones that make the ordinary names lead there.

locals {
  # The zone of each kind. A Foundry account answers under three names, so it has three.
  dns_zones = !var.private_networking ? {} : merge(
    {
      blob              = "privatelink.blob.core.windows.net"
      queue             = "privatelink.queue.core.windows.net"
      table             = "privatelink.table.core.windows.net"
      vault             = "privatelink.vaultcore.azure.net"
      openai            = "privatelink.openai.azure.com"
      cognitiveservices = "privatelink.cognitiveservices.azure.com"
      foundry           = "privatelink.services.ai.azure.com"
    },
    length(azapi_resource.scheduler) == 0 ? {} : { scheduler = "privatelink.durabletask.io" },
    var.redis_enabled ? { redis = "privatelink.redis.azure.net" } : {},
    var.private_inbound ? { sites = "privatelink.azurewebsites.net" } : {},
    !var.private_monitoring ? {} : {
      monitor    = "privatelink.monitor.azure.com"
      oms        = "privatelink.oms.opinsights.azure.com"
      ods        = "privatelink.ods.opinsights.azure.com"
      automation = "privatelink.agentsvc.azure-automation.net"
    },
  )

  # Whoever resolves those names: our own network, and those that were named.
  dns_networks = !var.private_networking ? {} : merge({ main = azurerm_virtual_network.main[0].id }, var.linked_networks)

  dns_links = merge([
    for zone in keys(local.dns_zones) : {
      for network, id in local.dns_networks : "${zone}-${network}" => { zone = zone, network = network, id = id }
    }
  ]...)

  # What the function app needs at start. The keys are known before anything exists, as for_each wants.
  private_targets = !var.private_networking ? {} : merge(
    { for kind in ["blob", "queue", "table"] : kind => { id = azurerm_storage_account.main.id, subresource = kind, zones = [kind] } },
    { vault = { id = azurerm_key_vault.main.id, subresource = "vault", zones = ["vault"] } },
    length(azapi_resource.scheduler) == 0 ? {} : {
      scheduler = { id = azapi_resource.scheduler[0].id, subresource = "scheduler", zones = ["scheduler"] }
    },
    var.redis_enabled ? { redis = { id = azurerm_managed_redis.main[0].id, subresource = "redisEnterprise", zones = ["redis"] } } : {},
    !var.private_monitoring ? {} : {
      monitor = {
        id          = azurerm_monitor_private_link_scope.main[0].id
        subresource = "azuremonitor"
        zones       = ["monitor", "oms", "ods", "automation", "blob"]
      }
    },
  )
}

resource "azurerm_private_dns_zone" "main" {
  for_each = local.dns_zones

  name                = each.value
  resource_group_name = azurerm_resource_group.main.name
  tags                = local.tags
}

resource "azurerm_private_dns_zone_virtual_network_link" "main" {
  for_each = local.dns_links

  name                 = "link-${local.name}-${each.value.network}"
  private_dns_zone_id  = azurerm_private_dns_zone.main[each.value.zone].id
  virtual_network_id   = each.value.id
  registration_enabled = false
  # A name the zone doesn't have is asked of the internet: another team's Azure OpenAI account, private in a network of its own
  # and public as well, would be unreachable from here otherwise.
  resolution_policy = "NxDomainRedirect"
  tags              = local.tags
}

resource "azurerm_private_endpoint" "main" {
  for_each = local.private_targets

  name                = "pe-${local.name}-${each.key}"
  resource_group_name = azurerm_resource_group.main.name
  location            = azurerm_resource_group.main.location
  subnet_id           = azurerm_subnet.endpoints[0].id
  tags                = local.tags

  private_service_connection {
    name                           = each.key
    private_connection_resource_id = each.value.id
    subresource_names              = [each.value.subresource]
    is_manual_connection           = false
  }

  private_dns_zone_group {
    name                 = "default"
    private_dns_zone_ids = [for zone in each.value.zones : azurerm_private_dns_zone.main[zone].id]
  }

  depends_on = [
    azurerm_private_dns_zone_virtual_network_link.main,
    azurerm_subnet_network_security_group_association.endpoints,
    # A scope without its members answers for them with nothing.
    azurerm_monitor_private_link_scoped_service.main,
  ]
}

# The accounts, wherever they are: a private endpoint may lead to another region. They wait for the deployments: an account
# tells its network that it is ready some time after it has told Terraform ("AccountProvisioningStateInvalid").
resource "azurerm_private_endpoint" "openai" {
  for_each = var.private_networking ? azurerm_cognitive_account.openai : {}

  name                = "pe-${local.name}-openai-${each.key}"
  resource_group_name = azurerm_resource_group.main.name
  location            = azurerm_resource_group.main.location
  subnet_id           = azurerm_subnet.endpoints[0].id
  tags                = local.tags

  private_service_connection {
    name                           = "openai-${each.key}"
    private_connection_resource_id = each.value.id
    subresource_names              = ["account"]
    is_manual_connection           = false
  }

  private_dns_zone_group {
    name = "default"
    private_dns_zone_ids = [
      for zone in ["cognitiveservices", "openai", "foundry"] : azurerm_private_dns_zone.main[zone].id
    ]
  }

  depends_on = [
    azurerm_cognitive_deployment.model,
    azurerm_private_dns_zone_virtual_network_link.main,
    azurerm_subnet_network_security_group_association.endpoints,
  ]
}

# Apart from the others: the function app waits for those, and this one waits for the function app.
resource "azurerm_private_endpoint" "inbound" {
  count = var.private_inbound ? 1 : 0

  name                = "pe-${local.name}-sites"
  resource_group_name = azurerm_resource_group.main.name
  location            = azurerm_resource_group.main.location
  subnet_id           = azurerm_subnet.endpoints[0].id
  tags                = local.tags

  private_service_connection {
    name                           = "sites"
    private_connection_resource_id = azapi_resource.function_app.id
    subresource_names              = ["sites"]
    is_manual_connection           = false
  }

  # The zone gets the deployment site's name as well (NAME.scm), which is what `make deploy` calls.
  private_dns_zone_group {
    name                 = "default"
    private_dns_zone_ids = [azurerm_private_dns_zone.main["sites"].id]
  }

  depends_on = [
    azurerm_private_dns_zone_virtual_network_link.main,
    azurerm_subnet_network_security_group_association.endpoints,
  ]
}

# ---- telemetry ----

resource "azurerm_monitor_private_link_scope" "main" {
  count = var.private_monitoring ? 1 : 0

  name                = "ampls-${local.name}"
  resource_group_name = azurerm_resource_group.main.name
  # PrivateOnly would cut off every other resource in networks that see this zone, and people's browsers from the workbook.
  ingestion_access_mode = "Open"
  query_access_mode     = "Open"
  tags                  = local.tags
}

resource "azurerm_monitor_private_link_scoped_service" "main" {
  for_each = !var.private_monitoring ? {} : {
    logs     = azurerm_log_analytics_workspace.main.id
    insights = azurerm_application_insights.main.id
  }

  name                = "scoped-${each.key}"
  resource_group_name = azurerm_resource_group.main.name
  scope_name          = azurerm_monitor_private_link_scope.main[0].name
  linked_resource_id  = each.value
}
