output "grafana_url" {
  description = "Grafana's address; null without it."
  value       = one(azurerm_dashboard_grafana.main[*].endpoint)
}

output "grafana_dashboards" {
  description = "The dashboards, name => JSON for Grafana's import; they suit any Grafana that reads the workspace. Null without Grafana."
  sensitive   = true # Not secret: `apply` would print thousands of lines.
  value       = !var.grafana_enabled ? null : { for name, dashboard in local.grafana_dashboards : name => jsonencode(dashboard) }
}

output "grafana_import_command" {
  description = "Imports or updates the dashboards, for those in grafana_admins (needs jq, and `az extension add --name amg`); null without Grafana."
  value = !var.grafana_enabled ? null : join(" ", [
    "terraform output -json grafana_dashboards | jq -c '.[] | fromjson' | while read -r dashboard; do",
    "az grafana dashboard create --name ${azurerm_dashboard_grafana.main[0].name} --resource-group ${azurerm_resource_group.main.name}",
    "--overwrite true --definition \"$dashboard\"; done",
  ])
}
