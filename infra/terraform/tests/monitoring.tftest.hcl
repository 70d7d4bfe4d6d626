# Telemetry's home, the workbook, the dashboard, alerts, web tests, diagnostic settings and the budget: on, off, and bad values.

mock_provider "azurerm" {
  # Known when planning, so that what is made of it can be looked at.
  override_resource {
    target          = azurerm_log_analytics_workspace.main
    override_during = plan
    values = {
      id           = "/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/rg-switchyard-dev/providers/Microsoft.OperationalInsights/workspaces/log-switchyard-dev"
      workspace_id = "99999999-2222-3333-4444-555555555555"
    }
  }
  override_resource {
    target          = azurerm_application_insights.main
    override_during = plan
    values = {
      id                = "/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/rg-switchyard-dev/providers/Microsoft.Insights/components/appi-switchyard-dev"
      connection_string = "InstrumentationKey=11111111-2222-3333-4444-555555555555;IngestionEndpoint=https://swedencentral-0.in.applicationinsights.azure.com/"
    }
  }
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
    target          = azurerm_application_insights_workbook.main
    override_during = plan
    values = {
      id = "/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/rg-switchyard-dev/providers/Microsoft.Insights/workbooks/22222222-2222-3333-4444-555555555555"
    }
  }
}
mock_provider "azapi" {}

variables {
  subscription_id = "00000000-0000-0000-0000-000000000001"
}

run "as_it_comes" {
  command = plan

  # ---- telemetry is sent with the identity only
  assert {
    condition     = !azurerm_application_insights.main.local_authentication_enabled && !azurerm_log_analytics_workspace.main.local_authentication_enabled
    error_message = "Nobody may send with a key."
  }
  assert {
    condition     = local.roles_monitoring["application_insights"].role == "Monitoring Metrics Publisher" && local.roles_monitoring["application_insights"].scope == azurerm_application_insights.main.id
    error_message = "The app's identity must be let in, here and nowhere else."
  }
  assert {
    condition     = local.app_settings["APPLICATIONINSIGHTS_CONNECTION_STRING"] == azurerm_application_insights.main.connection_string && local.app_settings["APPLICATIONINSIGHTS_AUTHENTICATION_STRING"] == "ClientId=bbbbbbbb-1111-2222-3333-444444444444;Authorization=AAD"
    error_message = "The app needs the address, the host the identity as well."
  }
  assert {
    condition     = local.app_settings["OTEL_SERVICE_NAME"] == azapi_resource.function_app.name
    error_message = "What the host and the app tell must be of one role, or the application map tears them apart."
  }
  assert {
    condition     = local.app_settings["OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"] == "false" && local.app_settings["OTEL_TRACES_SAMPLER_ARG"] == "1"
    error_message = "Prompts and answers stay out of telemetry unless somebody asks for them; every request is told."
  }
  assert {
    condition     = azurerm_log_analytics_workspace.main.daily_quota_gb > 0
    error_message = "A loop that logs must not be able to cost without end."
  }

  # ---- the workbook shows every query, health first
  assert {
    condition     = [for tab in local.workbook_plan.tabs : tab.id][0] == "health" && length(local.workbook_plan.tabs) == 6
    error_message = "Whoever opens the workbook must see first whether it is well."
  }
  assert {
    condition     = alltrue([for tab in local.workbook_plan.tabs : length(tab.read) > 40 && alltrue([for item in tab.items : length(item.title) > 5 && length(item.empty) > 5])])
    error_message = "Every tab must say how to read it, every picture what it shows and what no data means."
  }
  assert {
    condition = length(setsubtract(
      [for name in keys(local.queries) : name if !startswith(name, "alert_")],
      concat(["health_now", "choices_of_project", "choices_of_model"], flatten([for tab in local.workbook_plan.tabs : [for item in tab.items : item.query]]))
    )) == 0
    error_message = "A query that nobody sees is a query that nobody mends: show it, or delete it."
  }
  assert {
    condition     = !anytrue([for text in values(local.workbook_queries) : strcontains(text, "let since = ago(24h);") || strcontains(text, "let until = now();") || strcontains(text, "= \"*\";")])
    error_message = "Every query must follow the time range, the project and the model that were chosen."
  }
  assert {
    condition     = jsondecode(azurerm_application_insights_workbook.main.data_json).version == "Notebook/1.0" && length(jsondecode(azurerm_application_insights_workbook.main.data_json).items) == 9
    error_message = "Parameters, figures, tabs, and the six tabs' contents."
  }
  assert {
    condition     = azurerm_application_insights_workbook.main.source_id == lower(azurerm_application_insights.main.id) && can(regex("^[0-9a-f-]{36}$", azurerm_application_insights_workbook.main.name))
    error_message = "Azure wants a GUID as its name and gives the source back in lower case."
  }
  assert {
    condition     = endswith(output.workbook_url, "${azurerm_application_insights_workbook.main.id}/workbook")
    error_message = "People need a link that opens it."
  }

  assert {
    condition = alltrue(flatten([for group in local.workbook_groups : [for item in group.content.items :
      jsondecode(jsonencode(item.content)).chartSettings.showMetrics == false if try(item.content.visualization, "") == "timechart"
    ]]))
    error_message = "The portal adds a line's points up under the chart: of percentiles and shares that is nothing."
  }

  # ---- the dashboard asks the same queries
  assert {
    condition     = length(azapi_resource.dashboard.body.properties.lenses[0].parts) == length(local.dashboard_plan.tiles) + 1
    error_message = "A tile for each line of dashboard.yaml, and one that links to the workbook."
  }
  assert {
    condition     = alltrue([for tile in local.dashboard_plan.tiles : contains(keys(local.queries), tile.query)])
    error_message = "Tiles must ask queries that exist."
  }
  assert {
    condition     = alltrue([for tile in local.dashboard_plan.tiles : tile.at[0] + tile.at[2] <= 18])
    error_message = "Tiles must fit beside each other."
  }

  # ---- alerts watch what nobody looks at
  assert {
    condition     = azurerm_monitor_scheduled_query_rules_alert_v2.main["ingestion"].criteria[0].threshold == 10
    error_message = "The threshold that comes with it is below the cap that comes with it."
  }
  assert {
    condition     = join(" ", keys(azurerm_monitor_scheduled_query_rules_alert_v2.main)) == "breakers budget-100 budget-80 budget-refusals error-rate ingestion latency queue-age throttling"
    error_message = "Error rate, p95, every breaker open, budget thresholds and refusals, throttling, queue age, ingestion cost."
  }
  assert {
    condition     = azurerm_monitor_scheduled_query_rules_alert_v2.main["budget-100"].criteria[0].threshold == 99.9 && azurerm_monitor_scheduled_query_rules_alert_v2.main["budget-80"].criteria[0].threshold == 80
    error_message = "A hard budget is never spent to its last cent."
  }
  assert {
    condition     = alltrue([for rule in azurerm_monitor_scheduled_query_rules_alert_v2.main : rule.enabled && rule.auto_mitigation_enabled])
    error_message = "Alerts are on, and over when the cause is."
  }
  assert {
    condition     = azurerm_monitor_scheduled_query_rules_alert_v2.main["breakers"].severity == 0 && azurerm_monitor_metric_alert.availability[0].severity == 0
    error_message = "What no caller gets an answer from must wake somebody."
  }
  assert {
    condition     = length(azurerm_application_insights_standard_web_test.live[0].geo_locations) == 5 && azurerm_application_insights_standard_web_test.live[0].enabled && azurerm_application_insights_standard_web_test.live[0].request[0].url == "${local.endpoint}/v1/health/live"
    error_message = "The gateway must be asked from several places, where callers ask it."
  }
  assert {
    condition     = azurerm_monitor_metric_alert.availability[0].application_insights_web_test_location_availability_criteria[0].failed_location_count == 2
    error_message = "One place that fails is that place's trouble."
  }
  assert {
    condition     = alltrue([for rule in local.alert_rules : contains(keys(local.queries), rule.query)])
    error_message = "Alerts must ask queries that exist."
  }

  # ---- services log what is worth its price
  assert {
    condition     = join(" ", keys(azurerm_monitor_diagnostic_setting.main)) == "function-app key-vault openai-swedencentral storage-blob storage-queue storage-table"
    error_message = "The function app, the vault, each storage service and each model account must log."
  }
  assert {
    condition     = alltrue([for setting in azurerm_monitor_diagnostic_setting.main : length(setting.enabled_metric) == 0]) && [for log in azurerm_monitor_diagnostic_setting.main["storage-table"].enabled_log : log.category] == ["StorageDelete"]
    error_message = "Metrics and every row's reads and writes cost more than they tell: off until asked for."
  }

  # ---- the budget begins with this month
  assert {
    condition     = can(regex("^20[0-9]{2}-[01][0-9]-01T00:00:00Z$", azurerm_consumption_budget_resource_group.main[0].time_period[0].start_date))
    error_message = "Azure takes the first of a month only."
  }
}

run "as_the_operator_wants_it" {
  command = plan

  variables {
    alert_emails   = { oncall = "oncall@contoso.com" }
    alert_webhooks = { chat = "https://hooks.contoso.com/token" }
    alert_thresholds = {
      error_percent    = 2
      minimum_requests = 7
      budget_percents  = [50]
    }
    log_price_usd_per_gb       = 3.5
    log_daily_quota_gb         = 1
    diagnostic_metrics_enabled = true
    diagnostic_logs            = { storage = [], key_vault = [] }
    front_door_enabled         = true
    cost_budget_usd            = 500
    cost_budget_start_date     = "2026-11-01T00:00:00Z"
  }

  assert {
    condition     = azurerm_monitor_scheduled_query_rules_alert_v2.main["error-rate"].criteria[0].threshold == 2 && strcontains(azurerm_monitor_scheduled_query_rules_alert_v2.main["error-rate"].criteria[0].query, "let least_requests = 7;")
    error_message = "Thresholds must reach the rule and its query."
  }
  assert {
    condition     = strcontains(azurerm_monitor_scheduled_query_rules_alert_v2.main["throttling"].criteria[0].query, "let least_attempts = 7;") && strcontains(azurerm_monitor_scheduled_query_rules_alert_v2.main["ingestion"].criteria[0].query, "let usd_per_gb = 3.5;")
    error_message = "The least number and the price must reach the queries."
  }
  assert {
    condition     = azurerm_monitor_scheduled_query_rules_alert_v2.main["ingestion"].criteria[0].threshold == 3.15
    error_message = "Who is to be told before the cap is reached must be told at less than the cap costs."
  }
  assert {
    condition     = contains(keys(azurerm_monitor_scheduled_query_rules_alert_v2.main), "budget-50") && !contains(keys(azurerm_monitor_scheduled_query_rules_alert_v2.main), "budget-80")
    error_message = "A rule for each chosen share of a budget."
  }
  assert {
    condition     = azurerm_monitor_action_group.main.email_receiver[0].email_address == "oncall@contoso.com" && azurerm_monitor_action_group.main.webhook_receiver[0].name == "chat"
    error_message = "Those who were named must be told."
  }
  assert {
    condition     = length(azurerm_monitor_diagnostic_setting.main["storage-blob"].enabled_log) == 0 && [for metric in azurerm_monitor_diagnostic_setting.main["storage-blob"].enabled_metric : metric.category] == ["Transaction"]
    error_message = "Storage services name their metrics Transaction."
  }
  assert {
    condition     = [for metric in azurerm_monitor_diagnostic_setting.main["front-door"].enabled_metric : metric.category] == ["AllMetrics"] && length(azurerm_monitor_diagnostic_setting.main["front-door"].enabled_log) == 1
    error_message = "Front Door logs what its firewall refused."
  }
  assert {
    condition     = azurerm_consumption_budget_resource_group.main[0].amount == 500 && azurerm_consumption_budget_resource_group.main[0].time_period[0].start_date == "2026-11-01T00:00:00Z"
    error_message = "The budget must be the one that was asked for."
  }
}

run "as_little_as_possible" {
  command = plan

  variables {
    alerts_enabled    = false
    availability_test = { enabled = false }
    diagnostic_logs   = { function_app = [], key_vault = [], storage = [], openai = [] }
    cost_budget_usd   = null
  }

  assert {
    condition     = !azurerm_monitor_action_group.main.enabled && !anytrue([for rule in azurerm_monitor_scheduled_query_rules_alert_v2.main : rule.enabled])
    error_message = "Nothing may be evaluated, nobody told."
  }
  assert {
    condition     = length(azurerm_application_insights_standard_web_test.live) == 0 && length(azurerm_monitor_metric_alert.availability) == 0
    error_message = "Web tests cost money: off must make none."
  }
  assert {
    condition     = length(azurerm_monitor_diagnostic_setting.main) == 0
    error_message = "Azure refuses a setting that sends nothing."
  }
  assert {
    condition     = length(azurerm_consumption_budget_resource_group.main) == 0
    error_message = "null must make none."
  }
}

run "no_web_test_where_nobody_reaches_the_gateway" {
  command = plan

  variables {
    private_networking = true
    private_inbound    = true
  }

  assert {
    condition     = length(azurerm_application_insights_standard_web_test.live) == 0 && length(azurerm_monitor_metric_alert.availability) == 0
    error_message = "Azure's probes come from the internet: they would only ever fail."
  }
}

run "bad_values_are_refused" {
  command = plan

  variables {
    log_retention_days        = 7
    log_daily_quota_gb        = 0
    log_price_usd_per_gb      = 0
    trace_sampling_ratio      = 1.5
    metric_export_interval_ms = 120000
    alert_emails              = { oncall = "nobody" }
    alert_webhooks            = { chat = "http://contoso.com" }
    alert_thresholds          = { error_percent = 0, p95_seconds = -1 }
    availability_test         = { every_seconds = 60, failed_locations = 9 }
    cost_budget_usd           = 0
    cost_budget_start_date    = "2026-11-15T00:00:00Z"
    diagnostic_logs           = { storage = ["Everything"] }
  }

  expect_failures = [
    var.log_retention_days,
    var.log_daily_quota_gb,
    var.log_price_usd_per_gb,
    var.trace_sampling_ratio,
    var.metric_export_interval_ms,
    var.alert_emails,
    var.alert_webhooks,
    var.alert_thresholds,
    var.availability_test,
    var.cost_budget_usd,
    var.cost_budget_start_date,
    var.diagnostic_logs,
  ]
}
