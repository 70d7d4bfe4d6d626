# Redis, Grafana and the web host, on together: none knows of another.

mock_provider "azurerm" {
  override_resource {
    target          = azurerm_user_assigned_identity.app
    override_during = plan
    values = {
      id           = "/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/rg-switchyard-dev/providers/Microsoft.ManagedIdentity/userAssignedIdentities/id-switchyard-dev"
      principal_id = "aaaaaaaa-1111-2222-3333-444444444444"
      client_id    = "bbbbbbbb-1111-2222-3333-444444444444"
    }
  }
  override_resource {
    target          = azurerm_managed_redis.main
    override_during = plan
    values = {
      id       = "/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/rg-switchyard-dev/providers/Microsoft.Cache/redisEnterprise/redis-switchyard-dev"
      hostname = "redis-switchyard-dev.swedencentral.redis.azure.net"
      default_database = {
        port = 10000
      }
    }
  }
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

run "on" {
  command = plan

  variables {
    redis_enabled         = true
    grafana_enabled       = true
    grafana_admins        = ["cccccccc-1111-2222-3333-444444444444"]
    grafana_major_version = "13"
    web_enabled           = true
    cors_origins          = ["https://team.example.com"]
  }

  assert {
    condition     = local.app_settings["SWITCHYARD_REDIS"] == "rediss://aaaaaaaa-1111-2222-3333-444444444444@redis-switchyard-dev.swedencentral.redis.azure.net:10000/0"
    error_message = "The setting names the identity as user, and holds no password."
  }
  assert {
    condition     = !azurerm_managed_redis.main[0].default_database[0].access_keys_authentication_enabled && azurerm_managed_redis.main[0].default_database[0].client_protocol == "Encrypted"
    error_message = "Redis must refuse access keys and plain text."
  }
  assert {
    condition     = azurerm_managed_redis.main[0].default_database[0].clustering_policy == "EnterpriseCluster"
    error_message = "The client speaks to one address; it is no cluster client."
  }
  assert {
    condition     = azurerm_managed_redis_access_policy_assignment.app[0].object_id == "aaaaaaaa-1111-2222-3333-444444444444"
    error_message = "The app's identity must be a user of Redis."
  }
  assert {
    condition     = join(" ", output.extra_requirements) == "requirements-redis.txt" && fileexists("${path.module}/../../requirements-redis.txt")
    error_message = "The package must contain the library of Redis."
  }
  assert {
    condition     = azurerm_managed_redis.main[0].public_network_access == "Enabled" && contains(local.resource_providers_optional, "Microsoft.Cache")
    error_message = "Redis is public, behind identities, unless the network is private; its provider must be registered."
  }
  assert {
    condition     = azurerm_dashboard_grafana.main[0].grafana_major_version == "13" && !azurerm_dashboard_grafana.main[0].api_key_enabled && length(azurerm_dashboard_grafana.main[0].name) <= 23 && endswith(azurerm_dashboard_grafana.main[0].name, local.suffix)
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
    condition     = alltrue([for panel in local.grafana_dashboards["inside"].panels : strcontains(panel.targets[0].azureLogAnalytics.query, "| project TimeGenerated, table_name, usd\n| render columnchart") if panel.fieldConfig.defaults.unit == "currencyUSD"])
    error_message = "What is drawn as US dollars must be US dollars: Grafana stacks every number of a row."
  }
  assert {
    condition     = strcontains(local.grafana_queries["cost_over_time"], "let in_project = \"$${project:raw}\";") && strcontains(local.grafana_queries["cost_over_time"], "let until = $__timeTo();")
    error_message = "Queries must follow the choices of project and time."
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
