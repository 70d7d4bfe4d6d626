# Where chains and batches keep their histories: Durable Task Scheduler, or the storage account.

locals {
  durable_scheduler = var.durable_backend == "DurableTaskScheduler"

  # Azure Storage names queues and tables after the hub: letters and digits only.
  task_hub_name = local.compact

  settings_durable = merge(
    { TASKHUB_NAME = local.task_hub_name },
    local.durable_scheduler ? {
      DURABLE_TASK_SCHEDULER_CONNECTION_STRING = join(";", [
        "Endpoint=${azapi_resource.scheduler[0].output.endpoint}",
        "Authentication=ManagedIdentity",
        "ClientID=${azurerm_user_assigned_identity.app.client_id}",
      ])
      } : {
      # They override what host.json says of the scheduler.
      AzureFunctionsJobHost__extensions__durableTask__storageProvider__type                 = "AzureStorage"
      AzureFunctionsJobHost__extensions__durableTask__storageProvider__connectionStringName = "AzureWebJobsStorage"
    },
  )
}

# It purges the histories of what ended 30 days ago by itself. azurerm has no such resource up to 5.2
# (hashicorp/terraform-provider-azurerm #33280).
resource "azapi_resource" "scheduler" {
  count = local.durable_scheduler ? 1 : 0

  type      = "Microsoft.DurableTask/schedulers@2026-02-01"
  parent_id = azurerm_resource_group.main.id
  name      = "dts-${local.name}-${local.suffix}"
  location  = azurerm_resource_group.main.location
  tags      = local.tags

  body = {
    properties = {
      ipAllowlist         = var.durable_ip_allowlist
      publicNetworkAccess = var.private_networking ? "Disabled" : "Enabled"
      sku = merge(
        { name = var.durable_sku },
        var.durable_sku == "Dedicated" ? { capacity = var.durable_capacity } : {},
      )
    }
  }

  response_export_values = { endpoint = "properties.endpoint" }
}

resource "azapi_resource" "task_hub" {
  count = local.durable_scheduler ? 1 : 0

  type      = "Microsoft.DurableTask/schedulers/taskHubs@2026-02-01"
  parent_id = azapi_resource.scheduler[0].id
  name      = local.task_hub_name
  body      = { properties = {} }

  response_export_values = []
}
