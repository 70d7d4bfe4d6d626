# What Azure bills for the resource group: everything here, models on Azure among it, outside providers not. It tells, it stops nothing.

resource "azurerm_consumption_budget_resource_group" "main" {
  count = var.cost_budget_usd == null ? 0 : 1

  name              = "budget-${local.name}"
  resource_group_id = azurerm_resource_group.main.id
  amount            = var.cost_budget_usd
  time_grain        = "Monthly"

  time_period {
    # Azure takes the first of a month only, and for a new budget no month that is over.
    start_date = coalesce(var.cost_budget_start_date, formatdate("YYYY-MM-01'T'00:00:00'Z'", plantimestamp()))
  }

  dynamic "notification" {
    for_each = {
      spent-80    = { share = 80, kind = "Actual" }
      spent-100   = { share = 100, kind = "Actual" }
      forecast100 = { share = 100, kind = "Forecasted" }
    }
    content {
      enabled        = var.alerts_enabled
      operator       = "GreaterThanOrEqualTo"
      threshold      = notification.value.share
      threshold_type = notification.value.kind
      contact_groups = [azurerm_monitor_action_group.main.id]
      contact_emails = values(var.alert_emails)
    }
  }

  lifecycle {
    # The period begins with the first apply and never moves: another date would replace the budget, or differ every month.
    ignore_changes = [time_period]
  }
}
