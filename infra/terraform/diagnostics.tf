# What Azure's own services tell of themselves, into the same workspace: who read a secret, what the host said before telemetry began.

locals {
  diagnostics_metrics = var.diagnostic_metrics_enabled

  # Where from => which logs, and the name its metrics have there.
  diagnostics_wanted = merge(
    {
      function-app  = { target = azapi_resource.function_app.id, logs = var.diagnostic_logs.function_app, metrics = "AllMetrics" }
      key-vault     = { target = azurerm_key_vault.main.id, logs = var.diagnostic_logs.key_vault, metrics = "AllMetrics" }
      storage-blob  = { target = "${azurerm_storage_account.main.id}/blobServices/default", logs = var.diagnostic_logs.storage, metrics = "Transaction" }
      storage-queue = { target = "${azurerm_storage_account.main.id}/queueServices/default", logs = var.diagnostic_logs.storage, metrics = "Transaction" }
      storage-table = { target = "${azurerm_storage_account.main.id}/tableServices/default", logs = var.diagnostic_logs.storage, metrics = "Transaction" }
    },
    {
      for region, account in azurerm_cognitive_account.openai :
      "openai-${region}" => { target = account.id, logs = var.diagnostic_logs.openai, metrics = "AllMetrics" }
    },
    {
      for number, profile in azurerm_cdn_frontdoor_profile.main :
      "front-door" => { target = profile.id, logs = var.diagnostic_logs.front_door, metrics = "AllMetrics" }
    },
  )

  # Azure refuses a setting that sends nothing.
  diagnostics = { for name, wanted in local.diagnostics_wanted : name => wanted if length(wanted.logs) > 0 || local.diagnostics_metrics }
}

resource "azurerm_monitor_diagnostic_setting" "main" {
  for_each = local.diagnostics

  name                       = "to-workspace"
  target_resource_id         = each.value.target
  log_analytics_workspace_id = azurerm_log_analytics_workspace.main.id

  # log_analytics_destination_type is left to each service: some ignore it, and would differ from it at every plan.

  dynamic "enabled_log" {
    for_each = each.value.logs
    content {
      category = enabled_log.value
    }
  }

  dynamic "enabled_metric" {
    for_each = local.diagnostics_metrics ? [each.value.metrics] : []
    content {
      category = enabled_metric.value
    }
  }
}
