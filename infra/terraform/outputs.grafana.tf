output "grafana_url" {
  description = "Grafana's address; null without it."
  value       = one(azurerm_dashboard_grafana.main[*].endpoint)
}

output "grafana_import_command" {
  description = "What imports or updates the dashboards, run in infra/terraform by somebody in grafana_admins (needs `az extension add --name amg`); null without Grafana."
  value = !var.grafana_enabled ? null : join(" && ", [
    for file in sort(tolist(local.grafana_dashboards)) :
    "az grafana dashboard create --name ${azurerm_dashboard_grafana.main[0].name} --resource-group ${azurerm_resource_group.main.name} --overwrite true --definition @grafana/${file}"
  ])
}
