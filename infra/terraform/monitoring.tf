# Where telemetry goes. Application Insights is only a view on the workspace: one store, one daily cap, one bill.

resource "azurerm_log_analytics_workspace" "main" {
  name                = "log-${local.name}"
  resource_group_name = azurerm_resource_group.main.name
  location            = azurerm_resource_group.main.location
  sku                 = "PerGB2018"
  retention_in_days   = var.log_retention_days
  # The cap bounds the bill if something logs in a loop; the alert "ingestion" comes before it.
  daily_quota_gb = var.log_daily_quota_gb
  # Nobody sends with a shared key: the platform and the app have identities.
  local_authentication_enabled = false
  tags                         = local.tags
}

resource "azurerm_application_insights" "main" {
  name                = "appi-${local.name}"
  resource_group_name = azurerm_resource_group.main.name
  location            = azurerm_resource_group.main.location
  workspace_id        = azurerm_log_analytics_workspace.main.id
  application_type    = "web"
  # The connection string alone then opens nothing: whoever sends needs the role in roles_monitoring.
  local_authentication_enabled = false
  tags                         = local.tags
}

locals {
  settings_monitoring = {
    # Not a secret: without an identity that holds the role below nothing is accepted.
    APPLICATIONINSIGHTS_CONNECTION_STRING = nonsensitive(azurerm_application_insights.main.connection_string)
    # The Functions host reads this one; the app itself uses AZURE_CLIENT_ID.
    APPLICATIONINSIGHTS_AUTHENTICATION_STRING = "ClientId=${azurerm_user_assigned_identity.app.client_id};Authorization=AAD"
    # The name the host gives itself: with another one the application map would show two services that don't know each other.
    OTEL_SERVICE_NAME           = lower(local.function_app_name)
    OTEL_TRACES_SAMPLER_ARG     = tostring(var.trace_sampling_ratio)
    OTEL_METRIC_EXPORT_INTERVAL = tostring(var.metric_export_interval_ms)
    # Prompts and answers in telemetry: an operator's explicit choice.
    OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT = tostring(var.capture_message_content)
  }

  roles_monitoring = {
    application_insights = {
      scope = azurerm_application_insights.main.id
      role  = "Monitoring Metrics Publisher"
    }
  }
}
