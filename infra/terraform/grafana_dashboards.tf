# Grafana's dashboards are those of the workbook, one for each of its tabs: workbook/workbook.yaml says what they show,
# queries/*.kql what they ask, and this makes Grafana's format of both. One question has one query, wherever it is asked.

locals {
  # Grafana's words for the `let` lines at the top of a query (queries/README.md).
  grafana_queries = {
    for name, text in local.queries : name => replace(replace(replace(replace(
      text,
      "let since = ago(24h);", "let since = $__timeFrom();"),
      "let until = now();", "let until = $__timeTo();"),
      "let in_project = \"*\";", "let in_project = \"$${project:raw}\";"),
    "let of_model = \"*\";", "let of_model = \"$${model:raw}\";")
  }

  grafana_source = { type = "grafana-azure-monitor-datasource", uid = "$${source}" }

  grafana_panel = { tiles = "stat", table = "table", lines = "timeseries", columns = "timeseries", bars = "barchart" }
  grafana_unit  = { usd = "currencyUSD", percent = "percent", share = "percent", change = "percent", seconds = "s", count = "short" }

  grafana_colour = { green = "green", redBright = "red", orange = "orange", yellow = "yellow", gray = "#8e8e8e", blue = "blue" }

  # Twenty-four columns wide. Where a panel begins is where the ones before it end, in percent of a line.
  grafana_items = { for tab in local.workbook_plan.tabs : tab.id => [
    for number, item in tab.items : merge(item, {
      id    = number + 1
      width = try(item.width, 100)
      left  = number == 0 ? 0 : sum([for before in slice(tab.items, 0, number) : try(before.width, 100)])
    })
  ] }

  grafana_variables = concat(
    [{ type = "datasource", name = "source", label = "Source", query = "grafana-azure-monitor-datasource", hide = 2 }],
    [for name in ["project", "model"] : {
      type       = "query"
      name       = name
      label      = title(name)
      datasource = local.grafana_source
      refresh    = 2 # When the time range changes.
      current    = { text = "*", value = "*" }
      query = {
        refId     = "A"
        queryType = "Azure Log Analytics"
        azureLogAnalytics = {
          # Grafana takes every column for a choice: only the values, then. "*" is all.
          query     = "${trimspace(local.grafana_queries["choices_of_${name}"])}\n| project value"
          resources = [azurerm_log_analytics_workspace.main.id]
        }
      }
    }],
  )

  grafana_dashboards = { for tab in local.workbook_plan.tabs : tab.id => {
    uid           = "${local.name}-${tab.id}"
    title         = "Switchyard ${local.name}: ${tab.label}"
    description   = trimspace(try(tab.read, ""))
    tags          = ["switchyard", local.name]
    schemaVersion = 39
    editable      = true
    refresh       = "5m"
    time          = { from = "now-24h", to = "now" }
    templating    = { list = local.grafana_variables }
    # From one to the others, keeping the time range and the choices.
    links = [{ type = "dashboards", title = "Switchyard", tags = ["switchyard", local.name], asDropdown = true, includeVars = true, keepTime = true }]

    panels = [for item in local.grafana_items[tab.id] : {
      id         = item.id
      type       = lookup(local.grafana_panel, item.show, "table")
      title      = item.title
      datasource = local.grafana_source
      gridPos    = { w = floor(item.width * 24 / 100), h = 10, x = floor(item.left % 100 * 24 / 100), y = floor(item.left / 100) * 10 }

      targets = [{
        refId      = "A"
        datasource = local.grafana_source
        queryType  = "Azure Log Analytics"
        azureLogAnalytics = {
          # Grafana draws every number there is: gigabytes would be stacked on US dollars.
          query        = can(item.value) ? replace(local.grafana_queries[item.query], "| render ", "| project TimeGenerated, ${item.group}, ${item.value}\n| render ") : local.grafana_queries[item.query]
          resources    = [azurerm_log_analytics_workspace.main.id]
          resultFormat = contains(["lines", "columns"], item.show) ? "time_series" : "table"
        }
      }]

      fieldConfig = {
        defaults = {
          unit    = try(local.grafana_unit[item.unit], "short")
          noValue = try(item.empty, "No data")
          custom = { for name, value in {
            drawStyle   = item.show == "columns" ? "bars" : null
            fillOpacity = item.show == "columns" ? 80 : null
            stacking    = item.show == "columns" ? { mode = "normal" } : null
          } : name => value if value != null }
        }
        overrides = concat(
          [for series, colour in try(item.series, {}) : {
            matcher    = { id = "byRegexp", options = "/${series}/" }
            properties = [{ id = "color", value = { mode = "fixed", fixedColor = lookup(local.grafana_colour, colour, "blue") } }]
          }],
          [for column, shown in try(item.columns, {}) : {
            matcher = { id = "byName", options = column }
            properties = concat(
              [{ id = "displayName", value = shown.label }],
              [for unit in compact([try(local.grafana_unit[shown.as], "")]) : { id = "unit", value = unit }],
              [for hidden in try(shown.as, "") == "hidden" ? [true] : [] : { id = "custom.hidden", value = hidden }],
            )
          }],
        )
      }
    }]
  } }
}
