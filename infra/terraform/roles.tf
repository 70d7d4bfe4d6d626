# What the app's identity may do, and nothing beyond: each entry says which code needs it.

locals {
  roles_core = merge(
    {
      # The Functions host keeps its locks, timers' schedules and keys in blobs (AzureWebJobsStorage; it creates the containers), and
      # Flex Consumption reads the deployed package.
      storage_blobs = {
        scope = azurerm_storage_account.main.id
        role  = "Storage Blob Data Owner"
      }
      # shared/adapters/tables/azure.py: all of the gateway's state. The host writes its diagnostic events to a table too.
      storage_tables = {
        scope = azurerm_storage_account.main.id
        role  = "Storage Table Data Contributor"
      }
      # The platform resolves the Key Vault references in the app settings with this identity.
      key_vault = {
        scope = azurerm_key_vault.main.id
        role  = "Key Vault Secrets User"
      }
    },
    local.durable_scheduler ? {
      # functions/chains.py through the Durable extension: starts, queries and ends orchestrations of this hub.
      task_hub = {
        scope = azapi_resource.task_hub[0].id
        role  = "Durable Task Data Contributor"
      }
      } : {
      # The Durable extension's control and work-item queues; its history is in tables, its leases are in blobs.
      storage_queues = {
        scope = azurerm_storage_account.main.id
        role  = "Storage Queue Data Contributor"
      }
    },
  )

  roles_app = merge(local.roles_core, local.roles_openai, local.roles_monitoring, local.roles_optional)
}

resource "azurerm_role_assignment" "app" {
  for_each = local.roles_app

  scope                = each.value.scope
  role_definition_name = each.value.role
  principal_id         = azurerm_user_assigned_identity.app.principal_id
  # The directory may not know the new identity for a minute: told what it is, Azure doesn't ask there.
  principal_type = "ServicePrincipal"
}
