# Who is told of what. Each rule asks one file of queries/; all of them are switched off at once by alerts_enabled = false.

resource "azurerm_monitor_action_group" "main" {
  name                = "ag-${local.name}"
  resource_group_name = azurerm_resource_group.main.name
  short_name          = substr(var.prefix, 0, 12)
  enabled             = var.alerts_enabled
  tags                = local.tags

  dynamic "email_receiver" {
    for_each = var.alert_emails
    content {
      name                    = email_receiver.key
      email_address           = email_receiver.value
      use_common_alert_schema = true
    }
  }

  dynamic "webhook_receiver" {
    for_each = nonsensitive(toset(keys(var.alert_webhooks)))
    content {
      name                    = webhook_receiver.key
      service_uri             = var.alert_webhooks[webhook_receiver.value]
      use_common_alert_schema = true
    }
  }

  lifecycle {
    precondition {
      condition     = length(setintersection([for name in keys(var.alert_webhooks) : lower(name)], [for name in keys(var.alert_emails) : lower(name)])) == 0
      error_message = "alert_emails and alert_webhooks have a name in common: an action group wants another one for each receiver."
    }
  }
}

locals {
  # Before the cap, whatever it is: beyond it nothing is taken in, and no rule sees anything until the next day.
  alert_ingestion_usd = var.log_daily_quota_gb < 0 ? var.alert_thresholds.ingestion_usd_per_day : min(
    var.alert_thresholds.ingestion_usd_per_day, floor(90 * var.log_daily_quota_gb * var.log_price_usd_per_gb) / 100
  )

  # Severity: 0 somebody gets up, 1 today, 2 this week's business, 3 good to know.
  alert_rules = merge(
    {
      breakers = {
        severity = 0, query = "alert_breakers", measure = null, dimension = "model", threshold = 0, operator = "GreaterThan"
        window   = "PT10M", every = "PT5M"
        title    = "A model is out of reach"
        describe = "An instance holds the breakers of all of a model's deployments open: its callers get no answer, for five minutes now. See the workbook, Failures and failover."
        runbook  = "a-provider-is-down"
      }
      error-rate = {
        severity = 1, query = "alert_error_rate", measure = "error_percent", dimension = null, threshold = var.alert_thresholds.error_percent, operator = "GreaterThan"
        window   = "PT15M", every = "PT5M"
        title    = "Too many requests fail"
        describe = "More than ${var.alert_thresholds.error_percent} % of the requests of 15 minutes failed by our fault or a provider's. See the workbook, Failures and failover."
        runbook  = "when-an-alert-comes"
      }
      latency = {
        severity = 2, query = "alert_latency", measure = "p95_seconds", dimension = null, threshold = var.alert_thresholds.p95_seconds, operator = "GreaterThan"
        window   = "PT15M", every = "PT5M"
        title    = "Callers wait too long"
        describe = "5 % of the callers of 15 minutes waited longer than ${var.alert_thresholds.p95_seconds} s. See the workbook, Speed."
        runbook  = "when-an-alert-comes"
      }
      throttling = {
        severity = 3, query = "alert_throttling", measure = "throttled_percent", dimension = "deployment", threshold = var.alert_thresholds.throttled_percent, operator = "GreaterThan"
        window   = "PT15M", every = "PT5M"
        title    = "A provider throttles us"
        describe = "A deployment refused more than ${var.alert_thresholds.throttled_percent} % of the attempts of 15 minutes. Ask for quota, or add a region."
        runbook  = "adding-a-region"
      }
      queue-age = {
        severity = 2, query = "alert_queue_age", measure = "oldest_seconds", dimension = null, threshold = var.alert_thresholds.queue_age_seconds, operator = "GreaterThan"
        window   = "PT15M", every = "PT5M"
        title    = "Background work does not begin"
        describe = "The oldest piece of background work has waited longer than ${var.alert_thresholds.queue_age_seconds} s to begin. See the workbook, Inside."
        runbook  = "chains-that-do-not-end"
      }
      budget-refusals = {
        severity = 1, query = "alert_refusals", measure = "refused", dimension = "asked_by", threshold = 0, operator = "GreaterThan"
        window   = "PT15M", every = "PT15M"
        title    = "A budget refuses calls"
        describe = "Callers of this project got 429 insufficient_quota within 15 minutes: what their call may cost does not fit into what is left of a hard budget, or has no known price. See the workbook, Budgets."
        runbook  = "a-budget-is-exhausted"
      }
      ingestion = {
        severity = 3, query = "alert_ingestion", measure = "usd", dimension = null, threshold = local.alert_ingestion_usd, operator = "GreaterThan"
        window   = "P1D", every = "PT1H"
        title    = "Telemetry costs too much"
        describe = "A day's logs and telemetry cost more than ${local.alert_ingestion_usd} US dollars. Lower trace_sampling_ratio or diagnostic_logs; at log_daily_quota_gb nothing more is taken in until the next day, and no alert sees anything."
        runbook  = "when-an-alert-comes"
      }
    },
    {
      for percent in var.alert_thresholds.budget_percents : "budget-${percent}" => {
        severity = percent >= 100 ? 1 : 2, query = "alert_budgets", measure = "spent_percent", dimension = "budget", threshold = min(percent, 99.9), operator = "GreaterThanOrEqual"
        window   = "PT1H", every = "PT15M"
        # A hard budget is never spent to the last cent: 99.9 % of it is all of it, as for the gateway's own alerts.
        title    = percent >= 100 ? "A budget is exhausted" : "${percent} % of a budget are spent"
        describe = "One of the gateway's own budgets reached ${percent} % of its limit; a hard one refuses what no longer fits. See the workbook, Budgets."
        runbook  = "a-budget-is-exhausted"
      }
    },
  )
}

resource "azurerm_monitor_scheduled_query_rules_alert_v2" "main" {
  for_each = local.alert_rules

  name                = "alert-${local.name}-${each.key}"
  resource_group_name = azurerm_resource_group.main.name
  location            = azurerm_resource_group.main.location
  display_name        = "${each.value.title} (${local.name})"
  description         = "${each.value.describe} What to do: docs/runbook.md#${each.value.runbook}"
  severity            = each.value.severity
  enabled             = var.alerts_enabled
  tags                = local.tags

  scopes               = [azurerm_log_analytics_workspace.main.id]
  window_duration      = each.value.window
  evaluation_frequency = each.value.every
  # It is over when the query says so; nobody has to close it.
  auto_mitigation_enabled = true
  # A new workspace doesn't know its tables before the first record. The queries are checked in tests instead.
  skip_query_validation = true

  criteria {
    query = replace(replace(local.queries[each.value.query],
      "let least_requests = 20;", "let least_requests = ${var.alert_thresholds.minimum_requests};"),
    "let least_attempts = 20;", "let least_attempts = ${var.alert_thresholds.minimum_requests};")
    metric_measure_column   = each.value.measure
    time_aggregation_method = each.value.measure == null ? "Count" : "Maximum"
    operator                = each.value.operator
    threshold               = each.value.threshold

    dynamic "dimension" {
      for_each = each.value.dimension == null ? [] : [each.value.dimension]
      content {
        name     = dimension.value
        operator = "Include"
        values   = ["*"]
      }
    }

    failing_periods {
      minimum_failing_periods_to_trigger_alert = 1
      number_of_evaluation_periods             = 1
    }
  }

  action {
    action_groups = [azurerm_monitor_action_group.main.id]
  }
}

# ---- availability: asked from outside, because telemetry of what is down says nothing ----

locals {
  # Azure's probes come from the internet.
  availability_tested = var.availability_test.enabled && (!var.private_inbound || var.front_door_enabled)
  availability_url    = "${coalesce(local.front_door_endpoint, local.endpoint)}/v1/health/live"
}

resource "azurerm_application_insights_standard_web_test" "live" {
  count = local.availability_tested ? 1 : 0

  name                    = "live-${local.name}"
  resource_group_name     = azurerm_resource_group.main.name
  location                = azurerm_resource_group.main.location
  application_insights_id = azurerm_application_insights.main.id
  description             = "GET /v1/health/live: costs the gateway nothing, needs no key, starts an instance if none runs."
  enabled                 = true
  geo_locations           = var.availability_test.locations
  frequency               = var.availability_test.every_seconds
  timeout                 = 30
  retry_enabled           = true
  tags                    = local.tags

  request {
    url                              = local.availability_url
    http_verb                        = "GET"
    follow_redirects_enabled         = false
    parse_dependent_requests_enabled = false
  }

  validation_rules {
    expected_status_code        = 200
    ssl_check_enabled           = true
    ssl_cert_remaining_lifetime = 7
  }
}

resource "azurerm_monitor_metric_alert" "availability" {
  count = local.availability_tested ? 1 : 0

  name                = "alert-${local.name}-availability"
  resource_group_name = azurerm_resource_group.main.name
  description         = "The gateway can't be reached from ${var.availability_test.failed_locations} or more places. What to do: docs/runbook.md#when-an-alert-comes"
  severity            = 0
  enabled             = var.alerts_enabled
  auto_mitigate       = true
  tags                = local.tags

  scopes    = [azurerm_application_insights_standard_web_test.live[0].id, azurerm_application_insights.main.id]
  frequency = "PT5M"
  # Not shorter than the time between two tests from one place, or not enough places would ever fail together.
  window_size = "PT15M"

  application_insights_web_test_location_availability_criteria {
    web_test_id           = azurerm_application_insights_standard_web_test.live[0].id
    component_id          = azurerm_application_insights.main.id
    failed_location_count = var.availability_test.failed_locations
  }

  action {
    action_group_id = azurerm_monitor_action_group.main.id
  }
}
