# The app: what Azure is told about it, and its settings.

mock_provider "azurerm" {
  mock_resource "azurerm_user_assigned_identity" {
    defaults = {
      id        = "/subscriptions/11111111-1111-4111-8111-111111111111/resourceGroups/rg/providers/Microsoft.ManagedIdentity/userAssignedIdentities/id"
      client_id = "66666666-6666-4666-8666-666666666666"
    }
  }
}

mock_provider "azapi" {
  mock_resource "azapi_resource" {
    defaults = {
      output = { endpoint = "https://scheduler.swedencentral.durabletask.io" }
    }
  }
}

variables {
  subscription_id = "11111111-1111-4111-8111-111111111111"
  openai_regions  = {}
}

run "defaults" {
  assert {
    condition     = azapi_resource.function_app.body.kind == "functionapp,linux" && azapi_resource.plan.body.sku.name == "FC1"
    error_message = "A function app on Flex Consumption."
  }
  assert {
    condition     = azapi_resource.function_app.delete_query_parameters == tomap({ deleteEmptyServerFarm = tolist(["false"]) })
    error_message = "Azure deletes a plan with its last app unless told not to: Terraform would miss it when the app alone is replaced."
  }
  assert {
    condition = azapi_resource.function_app.body.properties.functionAppConfig == {
      deployment = {
        storage = {
          type  = "blobContainer"
          value = "https://${azurerm_storage_account.main.name}.blob.core.windows.net/deployments"
          authentication = {
            type                           = "UserAssignedIdentity"
            userAssignedIdentityResourceId = azurerm_user_assigned_identity.app.id
          }
        }
      }
      runtime = { name = "python", version = "3.11" }
      scaleAndConcurrency = {
        instanceMemoryMB     = 2048
        maximumInstanceCount = 40
        alwaysReady          = []
        triggers             = { http = { perInstanceConcurrency = 100 } }
      }
    }
    error_message = "Python 3.11, the package by identity, and no instance that is paid for at idle."
  }
  assert {
    condition     = azapi_resource.function_app.body.properties.keyVaultReferenceIdentity == azurerm_user_assigned_identity.app.id && azapi_resource.function_app.body.properties.virtualNetworkSubnetId == null
    error_message = "Key Vault references are read with the app's identity; without a network there is no subnet."
  }
  assert {
    condition     = azapi_resource.function_app.body.properties.httpsOnly && azapi_resource.function_app.body.properties.siteConfig.ftpsState == "Disabled"
    error_message = "HTTPS only, no FTP."
  }
  assert {
    condition     = join(",", azapi_resource.function_app.body.properties.siteConfig.appSettings[*].name) == join(",", sort(keys(local.app_settings)))
    error_message = "Settings in one order: another order would be a change on every plan."
  }
  assert {
    condition     = local.app_settings.AzureWebJobsStorage__accountName == azurerm_storage_account.main.name && local.app_settings.AzureWebJobsStorage__credential == "managedidentity" && local.app_settings.AzureWebJobsStorage__clientId == "66666666-6666-4666-8666-666666666666"
    error_message = "The host's storage by identity needs all three."
  }
  assert {
    condition     = !contains(keys(local.app_settings), "AzureWebJobsStorage")
    error_message = "Even an empty connection string would be preferred to the identity."
  }
  assert {
    condition     = local.app_settings.DURABLE_TASK_SCHEDULER_CONNECTION_STRING == "Endpoint=https://scheduler.swedencentral.durabletask.io;Authentication=ManagedIdentity;ClientID=66666666-6666-4666-8666-666666666666"
    error_message = "The scheduler's address as Azure tells it, and which identity to come with."
  }
  assert {
    condition     = local.app_settings.SWITCHYARD_STORAGE == "https://${azurerm_storage_account.main.name}.table.core.windows.net" && local.app_settings.FUNCTIONS_REQUEST_BODY_SIZE_LIMIT == "210763776"
    error_message = "State in the account's tables, and a host that lets uploads through that the app would take."
  }
  assert {
    condition     = length([for name in keys(local.app_settings) : name if contains(["SWITCHYARD_CORS_ORIGINS", "SWITCHYARD_ENTRA_TENANT", "SWITCHYARD_ALLOW_ANONYMOUS", "SWITCHYARD_USAGE_DAYS"], name)]) == 0
    error_message = "What is not chosen is not set."
  }
  assert {
    condition     = { for name, action in azapi_resource_action.publishing_credentials : name => action.body.properties.allow } == { ftp = false, scm = false }
    error_message = "No publishing by password."
  }
  assert {
    condition     = output.function_app_url == "https://${azapi_resource.function_app.name}.azurewebsites.net"
    error_message = "The address follows from the name."
  }
}

# azurerm would replace the account that the run before has made, and with it the ledger.
run "zones_never_replace_the_ledgers_account" {
  command = plan

  variables {
    storage_replication = "ZRS"
  }

  expect_failures = [azurerm_storage_account.main]
}

run "copies_in_another_region_are_in_the_same_account" {
  command = plan

  variables {
    storage_replication = "GRS"
  }

  assert {
    condition     = azurerm_storage_account.main.account_replication_type == "GRS"
    error_message = "Azure changes this in place."
  }
}

# Another installation, with a state of its own.
run "everything_chosen" {
  command   = plan
  state_key = "chosen"

  variables {
    instance_memory_mb  = 4096
    maximum_instances   = 200
    http_concurrency    = 250
    always_ready        = { http = 2, durable = 1, "function:sweep_chains" = 1 }
    zone_redundant      = true
    storage_replication = "ZRS"
    catalog             = "catalog/ours.yaml"
    allow_anonymous     = true
    entra               = { tenant_id = "22222222-2222-4222-8222-222222222222", audience = "api://switchyard", project_claim = "project" }
    webhook_hosts       = ["hooks.example.com", "hooks.example.org:8443"]
    usage_days          = 90
    cors_origins        = ["https://app.example.com"]
    max_body_bytes      = 2097152
    max_file_bytes      = 52428800
    max_in_flight       = 500
    app_settings        = { OPENAI_BASE_URL = "https://eu.api.openai.com/v1" }
  }

  assert {
    condition     = azapi_resource.plan.body.properties.zoneRedundant && azurerm_storage_account.main.account_replication_type == "ZRS"
    error_message = "Spread over zones, with its storage."
  }
  assert {
    condition = azapi_resource.function_app.body.properties.functionAppConfig.scaleAndConcurrency == {
      instanceMemoryMB     = 4096
      maximumInstanceCount = 200
      alwaysReady = [
        { name = "durable", instanceCount = 1 },
        { name = "function:sweep_chains", instanceCount = 1 },
        { name = "http", instanceCount = 2 },
      ]
      triggers = { http = { perInstanceConcurrency = 250 } }
    }
    error_message = "Scale is the operator's."
  }
  assert {
    condition = { for name, value in local.app_settings : name => value if startswith(name, "SWITCHYARD_") && contains(keys(local.settings_chosen), name) } == {
      SWITCHYARD_CATALOG             = "catalog/ours.yaml"
      SWITCHYARD_ALLOW_ANONYMOUS     = "1"
      SWITCHYARD_ENTRA_TENANT        = "22222222-2222-4222-8222-222222222222"
      SWITCHYARD_ENTRA_AUDIENCE      = "api://switchyard"
      SWITCHYARD_ENTRA_PROJECT_CLAIM = "project"
      SWITCHYARD_WEBHOOK_HOSTS       = "hooks.example.com,hooks.example.org:8443"
      SWITCHYARD_USAGE_DAYS          = "90"
      SWITCHYARD_CORS_ORIGINS        = "https://app.example.com"
      SWITCHYARD_MAX_IN_FLIGHT       = "500"
    }
    error_message = "Each choice is a setting that shared/settings.py reads."
  }
  assert {
    condition     = local.app_settings.FUNCTIONS_REQUEST_BODY_SIZE_LIMIT == "53477376" && local.app_settings.OPENAI_BASE_URL == "https://eu.api.openai.com/v1"
    error_message = "Limits follow the choice, further settings are passed on."
  }
}

run "refuses_sizes_azure_has_not" {
  command = plan

  variables {
    instance_memory_mb = 1024
    maximum_instances  = 10
    http_concurrency   = 1001
    max_body_bytes     = 10
    max_file_bytes     = 1073741824
    max_in_flight      = 0
    usage_days         = 0.5
  }

  expect_failures = [
    var.instance_memory_mb, var.maximum_instances, var.http_concurrency,
    var.max_body_bytes, var.max_file_bytes, var.max_in_flight, var.usage_days,
  ]
}

run "refuses_more_ready_instances_than_there_may_be" {
  command = plan

  variables {
    always_ready = { http = 30, durable = 11 }
  }

  expect_failures = [var.always_ready]
}

run "refuses_addresses_that_are_none_and_zones_over_storage_in_one" {
  command = plan

  variables {
    zone_redundant = true
    webhook_hosts  = ["https://hooks.example.com/alerts"]
    cors_origins   = ["app.example.com/"]
    entra          = { tenant_id = "contoso", audience = "" }
  }

  expect_failures = [var.webhook_hosts, var.cors_origins, var.entra, var.zone_redundant]
}

run "refuses_settings_without_a_value" {
  command = plan

  variables {
    app_settings = { OPENAI_BASE_URL = null }
  }

  expect_failures = [var.app_settings]
}

run "refuses_a_connection_string" {
  command = plan

  variables {
    app_settings = { AzureWebJobsStorage = "" }
  }

  expect_failures = [var.app_settings]
}

run "refuses_names_that_are_taken" {
  command = plan

  variables {
    app_settings   = { switchyard_storage = "memory:" }
    alert_emails   = { oncall = "oncall@contoso.com" }
    alert_webhooks = { OnCall = "https://chat.contoso.com/hook" }
  }

  expect_failures = [azapi_resource.function_app, azurerm_monitor_action_group.main]
}
