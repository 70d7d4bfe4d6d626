# Managed Grafana and the web dashboard's host: off, on, and bad values.

mock_provider "azurerm" {
  override_resource {
    target          = azurerm_static_web_app.main
    override_during = plan
    values = {
      id                = "/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/rg-switchyard-dev/providers/Microsoft.Web/staticSites/stapp-switchyard-dev"
      default_host_name = "kind-sea-0123.westeurope.azurestaticapps.net"
    }
  }
}
mock_provider "azapi" {}

variables {
  subscription_id = "00000000-0000-0000-0000-000000000001"
}

run "off_neither_is_made" {
  command = plan

  assert {
    condition     = length(azurerm_dashboard_grafana.main) == 0 && length(azurerm_role_assignment.grafana_reads) == 0 && length(azurerm_static_web_app.main) == 0
    error_message = "Off must make nothing."
  }
  assert {
    condition     = output.grafana_url == null && output.grafana_import_command == null && output.web_url == null && output.web_publish_command == null
    error_message = "Outputs of what is off must be null."
  }
  assert {
    condition     = length(local.cors_origins_optional) == 0 && !contains(keys(local.app_settings), "SWITCHYARD_CORS_ORIGINS")
    error_message = "No page may call the gateway unless it was named."
  }
}

run "grafana_reads_this_group_and_has_administrators" {
  command = plan

  variables {
    grafana_enabled       = true
    grafana_admins        = ["cccccccc-1111-2222-3333-444444444444"]
    grafana_major_version = "13"
  }

  assert {
    condition     = azurerm_dashboard_grafana.main[0].grafana_major_version == "13" && !azurerm_dashboard_grafana.main[0].api_key_enabled && length(azurerm_dashboard_grafana.main[0].name) <= 23
    error_message = "Grafana must have the chosen version, no API keys, and a name of 23 characters at most."
  }
  assert {
    condition     = azurerm_role_assignment.grafana_reads[0].role_definition_name == "Monitoring Reader" && length(azurerm_role_assignment.grafana_admin) == 1
    error_message = "Grafana reads telemetry and nothing else; the administrators are those who were named."
  }
  assert {
    condition     = length(local.grafana_dashboards) == length(local.workbook_plan.tabs) && alltrue([for dashboard in local.grafana_dashboards : length(dashboard.panels) > 0])
    error_message = "Every tab of the workbook must be a dashboard."
  }
  assert {
    condition = alltrue(flatten([for dashboard in local.grafana_dashboards : [for panel in dashboard.panels : [
      !strcontains(panel.targets[0].azureLogAnalytics.query, "let since = ago("), panel.gridPos.x + panel.gridPos.w <= 24, panel.gridPos.w >= 6,
    ]]]))
    error_message = "Every query must follow the time range that was chosen, and every panel must fit its line."
  }
  assert {
    condition     = strcontains(local.grafana_queries["cost_over_time"], "let in_project = \"$${project:raw}\";") && strcontains(local.grafana_queries["cost_over_time"], "let until = $__timeTo();")
    error_message = "Queries must follow the choices of project and time."
  }
}

run "pages_from_the_web_host_may_call" {
  command = plan

  variables {
    web_enabled  = true
    cors_origins = ["https://team.example.com"]
  }

  assert {
    condition     = local.app_settings["SWITCHYARD_CORS_ORIGINS"] == "https://team.example.com,https://kind-sea-0123.westeurope.azurestaticapps.net"
    error_message = "The host's own origin joins those of the operator."
  }
  assert {
    condition     = output.web_url == "https://kind-sea-0123.westeurope.azurestaticapps.net" && !azurerm_static_web_app.main[0].preview_environments_enabled
    error_message = "The host's address is told; previews, whose origin may not call, are off."
  }
}

run "refuses_a_grafana_nobody_can_enter" {
  command = plan

  variables {
    grafana_enabled = true
  }

  expect_failures = [var.grafana_admins]
}

run "refuses_bad_values" {
  command = plan

  variables {
    grafana_admins        = ["somebody@example.com"]
    grafana_major_version = "9"
    web_sku               = "Dedicated"
    web_location          = "swedencentral"
  }

  expect_failures = [var.grafana_admins, var.grafana_major_version, var.web_sku, var.web_location]
}
