output "workbook_url" {
  description = "The workbook in the portal: health, failures, speed, money, budgets."
  value       = local.workbook_url
}

output "dashboard_url" {
  description = "The portal dashboard: the last day on one screen."
  value       = local.dashboard_url
}

output "log_analytics_workspace_id" {
  description = "The workspace that holds all telemetry, for `az monitor log-analytics query --workspace`."
  value       = azurerm_log_analytics_workspace.main.workspace_id
}
