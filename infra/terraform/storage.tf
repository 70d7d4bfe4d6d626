# One account holds the host's own blobs, the deployed package and the tables. Nobody has its keys: callers have roles.

locals {
  # Every table of the code (`TABLE: Final` in shared/): a missing one would be made by the app at its first use, outside Terraform.
  tables = toset([
    "alerts",
    "batches",
    "budgets",
    "catalogoverlay",
    "catalogs",
    "chains",
    "engines",
    "feedback",
    "files",
    "health",
    "idempotency",
    "keys",
    "ledger",
    "limits",
    "metrics",
    "projects",
    "responses",
    "usage",
    "usagerollups",
  ])
}

resource "azurerm_storage_account" "main" {
  name                = "${substr("st${local.compact}", 0, 18)}${local.suffix}"
  resource_group_name = azurerm_resource_group.main.name
  location            = azurerm_resource_group.main.location
  tags                = local.tags

  account_tier             = "Standard"
  account_kind             = "StorageV2"
  account_replication_type = var.storage_replication

  min_tls_version                  = "TLS1_2"
  https_traffic_only_enabled       = true
  shared_access_key_enabled        = false
  default_to_oauth_authentication  = true
  allow_nested_items_to_be_public  = false
  cross_tenant_replication_enabled = false
  local_user_enabled               = false
  public_network_access_enabled    = !var.private_networking

  blob_properties {
    # Long enough to get yesterday's package back; the host rewrites its small blobs every minute, so no longer than that needs.
    delete_retention_policy {
      days = var.blob_retention_days
    }

    container_delete_retention_policy {
      days = var.blob_retention_days
    }
  }
}

resource "azurerm_storage_container" "deployment" {
  name                  = "deployments"
  storage_account_id    = azurerm_storage_account.main.id
  container_access_type = "private"
}

# Not azurerm_storage_table: that reads and writes access policies with a shared key, which this account refuses
# (hashicorp/terraform-provider-azurerm #32249).
resource "azapi_resource" "table" {
  for_each = local.tables

  type      = "Microsoft.Storage/storageAccounts/tableServices/tables@2023-05-01"
  parent_id = "${azurerm_storage_account.main.id}/tableServices/default"
  name      = each.value
  body      = { properties = {} }

  response_export_values = []
}
