# The portal dashboard: workbook/dashboard.yaml says what it shows, queries/*.kql what it asks.

locals {
  dashboard_plan = yamldecode(file("${path.module}/workbook/dashboard.yaml"))

  workbook_url  = "https://portal.azure.com/#@${data.azurerm_client_config.current.tenant_id}/resource${azurerm_application_insights_workbook.main.id}/workbook"
  dashboard_url = "https://portal.azure.com/#@${data.azurerm_client_config.current.tenant_id}/dashboard/arm${azapi_resource.dashboard.id}"

  dashboard_chart = { line = "Line", column = "StackedColumn" }

  dashboard_head = {
    position = { x = 0, y = 0, colSpan = 18, rowSpan = 2 }
    metadata = {
      type   = "Extension/HubsExtension/PartType/MarkdownPart"
      inputs = []
      settings = {
        content = {
          settings = {
            title          = "Switchyard ${local.name}"
            subtitle       = "The last 24 hours"
            content        = "[Open the workbook](${local.workbook_url}) for other times, one project or one model, and for what each picture means. Gateway: ${local.public_endpoint}"
            markdownSource = 1
          }
        }
      }
    }
  }

  dashboard_tiles = [for number, tile in local.dashboard_plan.tiles : {
    position = { x = tile.at[0], y = tile.at[1], colSpan = tile.at[2], rowSpan = tile.at[3] }
    metadata = {
      type     = "Extension/Microsoft_OperationsManagementSuite_Workspace/PartType/LogsDashboardPart"
      settings = {}
      inputs = [for input in [
        { name = "Scope", value = { resourceIds = [azurerm_log_analytics_workspace.main.id] } },
        { name = "PartId", value = uuidv5("oid", tile.query) },
        { name = "Version", value = "2.0" },
        { name = "TimeRange", value = "P1D" },
        { name = "Query", value = local.queries[tile.query] },
        { name = "ControlType", value = tile.chart == "table" ? "AnalyticsGrid" : "FrameControlChart" },
        { name = "SpecificChart", value = tile.chart == "table" ? null : local.dashboard_chart[tile.chart] },
        { name = "PartTitle", value = tile.title },
        { name = "PartSubTitle", value = tile.unit },
        { name = "Dimensions", value = tile.chart == "table" ? null : {
          xAxis       = { name = "TimeGenerated", type = "datetime" }
          yAxis       = [for column in flatten([tile.values]) : { name = column, type = "real" }]
          splitBy     = [for column in compact([try(tile.split, "")]) : { name = column, type = "string" }]
          aggregation = "Sum"
        } },
        { name = "LegendOptions", value = tile.chart == "table" ? null : { isEnabled = true, position = "Bottom" } },
        { name = "IsQueryContainTimeRange", value = true },
      ] : merge({ isOptional = true }, { for key, value in input : key => value if value != null })]
    }
  }]
}

# Not azurerm_portal_dashboard: which shape of `lenses` it takes, an object or a list, changes with the provider's version
# (hashicorp/terraform-provider-azurerm #27117, #32581).
resource "azapi_resource" "dashboard" {
  type      = "Microsoft.Portal/dashboards@2022-12-01-preview"
  parent_id = azurerm_resource_group.main.id
  name      = "dash-${local.name}"
  location  = azurerm_resource_group.main.location
  tags      = merge(local.tags, { hidden-title = "Switchyard ${local.name}" })

  body = {
    properties = {
      lenses = [{ order = 0, parts = concat([local.dashboard_head], local.dashboard_tiles) }]
      metadata = {
        model = {
          timeRange = { type = "MsPortalFx.Composition.Configuration.ValueTypes.TimeRange", value = { relative = { duration = 24, timeUnit = 1 } } }
        }
      }
    }
  }

  # The published schema knows Markdown tiles only.
  schema_validation_enabled = false
  response_export_values    = []
}
