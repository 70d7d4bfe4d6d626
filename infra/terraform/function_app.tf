# The app itself, on Flex Consumption: nothing to pay while nobody calls, unless instances are kept ready.

locals {
  function_app_name = "func-${local.name}-${local.suffix}"

  # Known before the app is there, so that what stands in front of it can be told in its settings.
  endpoint = "https://${local.function_app_name}.azurewebsites.net"

  settings_core = merge(
    {
      # The host's own storage, by identity. All three are needed; a connection string, even an empty one, would be preferred.
      AzureWebJobsStorage__accountName = azurerm_storage_account.main.name
      AzureWebJobsStorage__credential  = "managedidentity"
      AzureWebJobsStorage__clientId    = azurerm_user_assigned_identity.app.client_id

      # azure-identity's DefaultAzureCredential takes the user-assigned identity that this names.
      AZURE_CLIENT_ID = azurerm_user_assigned_identity.app.client_id

      # Without it the worker doesn't index functions that stream.
      PYTHON_ENABLE_INIT_INDEXING = "1"

      SWITCHYARD_STORAGE = "https://${azurerm_storage_account.main.name}.table.core.windows.net"

      # The host's own limit on a body, so that the app's is the one that speaks.
      FUNCTIONS_REQUEST_BODY_SIZE_LIMIT = tostring(max(var.max_file_bytes, var.max_body_bytes) + 1024 * 1024)
      SWITCHYARD_MAX_BODY_BYTES         = tostring(var.max_body_bytes)
      SWITCHYARD_MAX_FILE_BYTES         = tostring(var.max_file_bytes)
    },
    local.settings_durable,
    local.settings_secrets,
    # What is not set is left out: the app then takes its own default.
    { for name, value in local.settings_chosen : name => value if value != null && value != "" },
  )

  settings_chosen = {
    SWITCHYARD_CATALOG             = var.catalog
    SWITCHYARD_ALLOW_ANONYMOUS     = var.allow_anonymous ? "1" : null
    SWITCHYARD_ENTRA_TENANT        = var.entra == null ? null : var.entra.tenant_id
    SWITCHYARD_ENTRA_AUDIENCE      = var.entra == null ? null : var.entra.audience
    SWITCHYARD_ENTRA_PROJECT_CLAIM = var.entra == null ? null : var.entra.project_claim
    SWITCHYARD_WEBHOOK_HOSTS       = join(",", var.webhook_hosts)
    SWITCHYARD_USAGE_DAYS          = var.usage_days == null ? null : tostring(var.usage_days)
    SWITCHYARD_CORS_ORIGINS        = join(",", distinct(concat(var.cors_origins, local.cors_origins_optional)))
    SWITCHYARD_MAX_IN_FLIGHT       = var.max_in_flight == null ? null : tostring(var.max_in_flight)
  }

  settings_made = merge(local.settings_core, local.settings_openai, local.settings_monitoring, local.settings_optional)
  app_settings  = merge(local.settings_made, var.app_settings)

  # Azure takes names that differ by case only for one.
  settings_taken = [for name in keys(var.app_settings) : name if contains([for made in keys(local.settings_made) : lower(made)], lower(name))]
}

# By azapi too: azurerm_service_plan spells the id `/serverFarms/` where Azure answers `/serverfarms/`, and knows zones only of
# Premium plans.
resource "azapi_resource" "plan" {
  type      = "Microsoft.Web/serverfarms@2024-04-01"
  parent_id = azurerm_resource_group.main.id
  name      = "asp-${local.name}"
  location  = azurerm_resource_group.main.location
  tags      = local.tags

  body = {
    kind = "functionapp"
    sku = {
      name = "FC1"
      tier = "FlexConsumption"
    }
    properties = {
      reserved      = true # Linux.
      zoneRedundant = var.zone_redundant
    }
  }

  ignore_casing          = true
  response_export_values = []
}

# Not azurerm_function_app_flex_consumption: with an identity's storage it sends `AzureWebJobsStorage` with an empty key, which the
# host prefers and dies of (hashicorp/terraform-provider-azurerm #29149, #33211), and it can't say which identity reads Key Vault
# references (#28928).
resource "azapi_resource" "function_app" {
  type      = "Microsoft.Web/sites@2024-04-01"
  parent_id = azurerm_resource_group.main.id
  name      = local.function_app_name
  location  = azurerm_resource_group.main.location
  tags      = local.tags

  identity {
    type         = "UserAssigned"
    identity_ids = [azurerm_user_assigned_identity.app.id]
  }

  body = {
    kind = "functionapp,linux"
    properties = {
      serverFarmId              = azapi_resource.plan.id
      httpsOnly                 = true
      clientAffinityEnabled     = false
      publicNetworkAccess       = local.function_public_access
      keyVaultReferenceIdentity = azurerm_user_assigned_identity.app.id
      # Null is sent as well: the app then leaves the network it may have been in.
      virtualNetworkSubnetId = local.function_subnet_id

      functionAppConfig = {
        deployment = {
          storage = {
            type  = "blobContainer"
            value = "https://${azurerm_storage_account.main.name}.blob.core.windows.net/${azurerm_storage_container.deployment.name}"
            authentication = {
              type                           = "UserAssignedIdentity"
              userAssignedIdentityResourceId = azurerm_user_assigned_identity.app.id
            }
          }
        }
        runtime = {
          name    = "python"
          version = "3.11"
        }
        scaleAndConcurrency = {
          instanceMemoryMB     = var.instance_memory_mb
          maximumInstanceCount = var.maximum_instances
          alwaysReady          = [for name in sort(keys(var.always_ready)) : { name = name, instanceCount = var.always_ready[name] }]
          triggers             = { http = { perInstanceConcurrency = var.http_concurrency } }
        }
      }

      siteConfig = merge(
        {
          ftpsState        = "Disabled"
          http20Enabled    = true
          minTlsVersion    = "1.2"
          scmMinTlsVersion = "1.2"
          # Said either way: rules that were sent once stay when they are sent no more.
          ipSecurityRestrictionsDefaultAction = length(local.ip_restrictions_optional) == 0 ? "Allow" : "Deny"
          # In one order, or every plan would find another one. Azure returns no settings with the app, so that a plan doesn't see
          # what was changed by hand; the next change here overwrites it.
          appSettings = [for name in sort(keys(local.app_settings)) : { name = name, value = local.app_settings[name] }]
        },
        length(local.ip_restrictions_optional) == 0 ? {} : { ipSecurityRestrictions = local.ip_restrictions_optional },
      )
    }
  }

  # Azure would delete the plan with its last app: whoever replaces the app alone would find the plan gone.
  delete_query_parameters = { deleteEmptyServerFarm = ["false"] }

  # Azure answers some of the ids above in another case.
  ignore_casing          = true
  response_export_values = []

  # At its first start the app reads its package, its tables and its secrets, with private networking through the endpoints.
  depends_on = [
    azapi_resource.table,
    azapi_resource.task_hub,
    azapi_resource_action.secret,
    azurerm_managed_redis_access_policy_assignment.app,
    azurerm_private_endpoint.main,
    azurerm_role_assignment.app,
  ]

  lifecycle {
    # Of siteConfig above this alone comes back with the app, the rest as null. Should Azure not take it on Flex Consumption, every
    # plan would want to change it again.
    ignore_changes = [body.properties.siteConfig.http20Enabled]

    precondition {
      condition     = length(local.settings_taken) == 0
      error_message = "app_settings has a setting that Terraform makes itself: ${join(", ", local.settings_taken)}. Use its variable instead."
    }
  }
}

# Code is deployed with Entra ID only: no user name and password for FTP or for the deployment site. Actions, because these two
# are there as soon as the app is, and can't be deleted.
resource "azapi_resource_action" "publishing_credentials" {
  for_each = toset(["ftp", "scm"])

  type        = "Microsoft.Web/sites/basicPublishingCredentialsPolicies@2024-04-01"
  resource_id = "${azapi_resource.function_app.id}/basicPublishingCredentialsPolicies/${each.value}"
  method      = "PUT"
  body        = { properties = { allow = false } }

  response_export_values = []
}
