output "workbook_url" {
  description = "The workbook in the portal: health, failures, speed, money, budgets."
  value       = "https://portal.azure.com/#@${data.azurerm_client_config.current.tenant_id}/resource${azurerm_application_insights_workbook.main.id}/workbook"
}
