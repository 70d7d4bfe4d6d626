# Azure Managed Grafana, off unless var.grafana_enabled. To import its dashboards is a call to Grafana itself, with a person's
# sign-in, so it is a command (output grafana_import_command) and not a resource.

resource "azurerm_dashboard_grafana" "main" {
  count = var.grafana_enabled ? 1 : 0

  name                  = "amg-${substr(local.compact, 0, 12)}-${local.suffix}" # 23 characters at most; the suffix tells environments apart.
  resource_group_name   = azurerm_resource_group.main.name
  location              = azurerm_resource_group.main.location
  grafana_major_version = var.grafana_major_version
  api_key_enabled       = false
  # A site for people, behind Entra ID: its address stays public with private networking, as the portal's does.
  public_network_access_enabled = true
  tags                          = local.tags

  identity {
    type = "SystemAssigned"
  }
}

# Metrics, logs and traces of this group, and nothing else.
resource "azurerm_role_assignment" "grafana_reads" {
  count = var.grafana_enabled ? 1 : 0

  scope                = azurerm_resource_group.main.id
  role_definition_name = "Monitoring Reader"
  principal_id         = azurerm_dashboard_grafana.main[0].identity[0].principal_id
  principal_type       = "ServicePrincipal"
}

resource "azurerm_role_assignment" "grafana_admin" {
  for_each = toset([for id in var.grafana_admins : lower(id) if var.grafana_enabled])

  scope                = azurerm_dashboard_grafana.main[0].id
  role_definition_name = "Grafana Admin"
  principal_id         = each.value
}
