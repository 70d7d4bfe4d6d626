# Azure Managed Redis for rate limits, off unless var.redis_enabled. There is no access key: the app's identity is a user of it.

locals {
  settings_redis = !var.redis_enabled ? {} : {
    # A user and no password: the app presents a token of its identity instead.
    SWITCHYARD_REDIS = join("", [
      "rediss://${azurerm_user_assigned_identity.app.principal_id}@",
      "${azurerm_managed_redis.main[0].hostname}:${azurerm_managed_redis.main[0].default_database[0].port}/0",
    ])
  }
}

resource "azurerm_managed_redis" "main" {
  count = var.redis_enabled ? 1 : 0

  name                      = "redis-${local.name}-${local.suffix}"
  resource_group_name       = azurerm_resource_group.main.name
  location                  = azurerm_resource_group.main.location
  sku_name                  = var.redis_sku
  high_availability_enabled = var.redis_high_availability
  public_network_access     = local.public_access
  tags                      = local.tags

  default_database {
    access_keys_authentication_enabled = false
    client_protocol                    = "Encrypted"
    # One address for all: the client is no cluster client, and all keys share a hash tag.
    clustering_policy = "EnterpriseCluster"
    # Counters live two minutes. If memory ran out, those that end soonest would matter least.
    eviction_policy = "VolatileTTL"
  }
}

resource "azurerm_managed_redis_access_policy_assignment" "app" {
  count = var.redis_enabled ? 1 : 0

  managed_redis_id = azurerm_managed_redis.main[0].id
  object_id        = azurerm_user_assigned_identity.app.principal_id
}
