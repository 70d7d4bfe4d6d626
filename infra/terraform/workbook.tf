# The workbook: workbook/workbook.yaml says what it shows, queries/*.kql what it asks; this makes Azure's notebook format of both.

locals {
  queries = {
    for file in fileset("${path.module}/queries", "*.kql") :
    trimsuffix(file, ".kql") => replace(file("${path.module}/queries/${file}"), "let usd_per_gb = 2.3;", "let usd_per_gb = ${var.log_price_usd_per_gb};")
  }

  # The `let` lines at the top of a query are its parameters: see queries/README.md.
  workbook_queries = {
    for name, text in local.queries : name => replace(replace(replace(replace(
      text,
      "let since = ago(24h);", "let since = datetime({TimeRange:startISO});"),
      "let until = now();", "let until = datetime({TimeRange:endISO});"),
      "let in_project = \"*\";", "let in_project = \"{Project}\";"),
    "let of_model = \"*\";", "let of_model = \"{Model}\";")
  }

  workbook_plan = yamldecode(file("${path.module}/workbook/workbook.yaml"))
  workbook_name = uuidv5("url", "https://github.com/switchyard/workbook/${var.subscription_id}/${local.name}")

  # ---- Azure's words for ours ----

  workbook_visualization = { table = "table", lines = "timechart", columns = "barchart" }

  workbook_number = {
    usd     = { unit = 0, options = { style = "currency", currency = "USD", minimumFractionDigits = 2, maximumFractionDigits = 4 } }
    percent = { unit = 1, options = { style = "decimal", maximumFractionDigits = 1 } }
    seconds = { unit = 24, options = { style = "decimal", maximumFractionDigits = 2 } }
    count   = { unit = 17, options = { style = "decimal", maximumFractionDigits = 1 } }
  }

  # formatter: 0 as it is, 3 bar, 6 time, 8 heat map, 18 thresholds.
  workbook_column = {
    usd     = { formatter = 0, numberFormat = local.workbook_number.usd }
    percent = { formatter = 0, numberFormat = local.workbook_number.percent }
    seconds = { formatter = 0, numberFormat = local.workbook_number.seconds }
    count   = { formatter = 0, numberFormat = local.workbook_number.count }
    bar     = { formatter = 3, formatOptions = { min = 0, palette = "blue" } }
    share   = { formatter = 3, formatOptions = { min = 0, max = 100, palette = "greenRed" }, numberFormat = local.workbook_number.percent }
    heat    = { formatter = 8, formatOptions = { min = 0, palette = "yellowOrangeRed" } }
    time    = { formatter = 6 }
    state = {
      formatter = 18
      formatOptions = {
        thresholdsOptions = "icons"
        thresholdsGrid = concat(
          [for state in ["open", "exhausted"] : { operator = "==", thresholdValue = state, representation = "4", text = "{0}{1}" }],
          [for state in ["half open", "will run out", "close"] : { operator = "==", thresholdValue = state, representation = "2", text = "{0}{1}" }],
          [{ operator = "==", thresholdValue = "too early to say", representation = "unknown", text = "{0}{1}" }],
          [{ operator = "Default", thresholdValue = null, representation = "success", text = "{0}{1}" }],
        )
      }
    }
    change = {
      formatter = 18
      formatOptions = {
        thresholdsOptions = "colors"
        thresholdsGrid = [
          { operator = ">", thresholdValue = "20", representation = "redBright", text = "{0}{1}" },
          { operator = ">", thresholdValue = "5", representation = "yellow", text = "{0}{1}" },
          { operator = "<", thresholdValue = "-5", representation = "green", text = "{0}{1}" },
          { operator = "Default", thresholdValue = null, representation = null, text = "{0}{1}" },
        ]
      }
      numberFormat = local.workbook_number.percent
    }
  }

  # What every query is asked of.
  workbook_asked = {
    queryType               = 0
    resourceType            = "microsoft.operationalinsights/workspaces"
    crossComponentResources = [azurerm_log_analytics_workspace.main.id]
  }

  # ---- the parts ----

  workbook_parameters = {
    type = 9
    name = "parameters"
    content = merge(local.workbook_asked, {
      version = "KqlParameterItem/1.0"
      style   = "pills"
      parameters = concat(
        [{
          id         = uuidv5("oid", "time")
          version    = "KqlParameterItem/1.0"
          name       = "TimeRange"
          label      = "Time range"
          type       = 4
          isRequired = true
          value      = { durationMs = 86400000 }
          typeSettings = {
            # An hour, four, a day, three days, a week, two, thirty days, ninety.
            selectableValues = [for hours in [1, 4, 24, 72, 168, 336, 720, 2160] : { durationMs = hours * 3600000 }]
            allowCustom      = true
          }
        }],
        [for name in ["Project", "Model"] : merge(local.workbook_asked, {
          id                       = uuidv5("oid", lower(name))
          version                  = "KqlParameterItem/1.0"
          name                     = name
          label                    = name
          type                     = 2
          isRequired               = true
          value                    = "*"
          query                    = local.workbook_queries["choices_of_${lower(name)}"]
          timeContextFromParameter = "TimeRange"
          typeSettings             = { additionalResourceOptions = [], showDefault = false }
        })],
      )
    })
  }

  workbook_figures = {
    type = 3
    name = "figures"
    content = merge(local.workbook_asked, {
      version                  = "KqlItem/1.0"
      query                    = local.workbook_queries["health_now"]
      size                     = 4
      timeContextFromParameter = "TimeRange"
      visualization            = "tiles"
      tileSettings = {
        titleContent    = { columnMatch = "figure", formatter = 1 }
        leftContent     = { columnMatch = "value", formatter = 12 }
        subtitleContent = { columnMatch = "unit", formatter = 1 }
        showBorder      = true
        size            = "auto"
      }
    })
  }

  workbook_tabs = {
    type = 11
    name = "tabs"
    content = {
      version = "LinkItem/1.0"
      style   = "tabs"
      links = [for tab in local.workbook_plan.tabs : {
        id         = uuidv5("oid", tab.id)
        cellValue  = "tab"
        linkTarget = "parameter"
        linkLabel  = tab.label
        subTarget  = tab.id
        style      = "link"
      }]
    }
  }

  workbook_groups = [for tab in local.workbook_plan.tabs : {
    type                  = 12
    name                  = tab.id
    conditionalVisibility = { parameterName = "tab", comparison = "isEqualTo", value = tab.id }
    content = {
      version   = "NotebookGroup/1.0"
      groupType = "editable"
      items = concat(
        [{ type = 1, name = "${tab.id}-read", content = { json = "### ${tab.label}\n${tab.read}" } }],
        [for number, item in tab.items : {
          type        = 3
          name        = "${tab.id}-${item.query}"
          customWidth = tostring(try(item.width, 100))
          styleSettings = {
            showBorder = true
          }
          # What an item does not set is left out: an empty setting would not mean the default.
          content = { for key, value in merge(local.workbook_asked, {
            version                  = "KqlItem/1.0"
            query                    = local.workbook_queries[item.query]
            size                     = item.show == "table" ? 0 : 1
            title                    = item.title
            noDataMessage            = item.empty
            noDataMessageStyle       = try(item.fine, false) ? 3 : null # A green tick.
            showExportToExcel        = item.show == "table" ? true : null
            timeContext              = try(item.wide, false) ? { durationMs = 0 } : null # 0: the query says it
            timeContextFromParameter = try(item.wide, false) ? null : "TimeRange"
            visualization            = local.workbook_visualization[item.show]
            chartSettings = item.show == "table" ? null : { for name, setting in {
              showLegend          = true
              showMetrics         = item.show == "lines" ? false : null # Under the chart: sums, which percentiles and shares have none of.
              xAxis               = "TimeGenerated"
              yAxis               = try([item.value], null)
              group               = try(item.group, null)
              seriesLabelSettings = try([for series, colour in item.series : { seriesName = series, color = colour }], null)
              ySettings           = { numberFormatSettings = local.workbook_number[item.unit] }
              createOtherGroup    = 12
              showDataPoints      = false
            } : name => setting if setting != null }
            gridSettings = item.show != "table" ? null : {
              rowLimit      = 200
              filter        = true
              formatters    = [for column, shown in item.columns : merge({ columnMatch = "^${column}$" }, local.workbook_column[shown.as]) if try(shown.as, null) != null]
              labelSettings = [for column, shown in item.columns : { columnId = column, label = shown.label }]
            }
          }) : key => value if value != null }
        }],
      )
    }
  }]
}

resource "azurerm_application_insights_workbook" "main" {
  name                = local.workbook_name
  resource_group_name = azurerm_resource_group.main.name
  location            = azurerm_resource_group.main.location
  display_name        = "Switchyard ${local.name}"
  description         = "What it costs, what fails, what fell over to what, what got slower, and what budgets will look like."
  category            = "workbook"
  # Shown under Application Insights. Azure keeps it in lower case.
  source_id = lower(azurerm_application_insights.main.id)
  tags      = local.tags

  data_json = jsonencode({
    version             = "Notebook/1.0"
    "$schema"           = "https://github.com/Microsoft/Application-Insights-Workbooks/blob/master/schema/workbook.json"
    fallbackResourceIds = [lower(azurerm_application_insights.main.id)]
    items               = concat([local.workbook_parameters, local.workbook_figures, local.workbook_tabs], local.workbook_groups)
  })
}
