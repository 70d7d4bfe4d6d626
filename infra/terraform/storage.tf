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

  # Another account, and an empty one, if one of these changes. Between zones and none Azure can convert an account, azurerm can't
  # (hashicorp/terraform-provider-azurerm #32049).
  storage_identity = {
    name     = "${substr("st${local.compact}", 0, 18)}${local.suffix}"
    location = var.location
    zones    = endswith(var.storage_replication, "ZRS")
  }
}

# What it was at the first apply: a variable that was changed must not take the ledger with it, and a workflow asks nobody.
resource "terraform_data" "storage" {
  input = local.storage_identity

  lifecycle {
    ignore_changes = [input]
  }
}

resource "azurerm_storage_account" "main" {
  name                = local.storage_identity.name
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

  lifecycle {
    precondition {
      condition     = terraform_data.storage.output == local.storage_identity
      error_message = "This would replace the storage account: the ledger, the keys and everything else that is stored would be lost. It was made with ${jsonencode(terraform_data.storage.output)}, and is now asked for with ${jsonencode(local.storage_identity)}. Another prefix, environment or location is another installation, with a state of its own; storage over zones or not: see docs/runbook.md, Storage over zones. If all of it may go, add -replace=terraform_data.storage."
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
