# Where chains keep their histories.

mock_provider "azurerm" {}

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

run "the_scheduler_costs_nothing_at_idle" {
  command = plan

  assert {
    condition     = azapi_resource.scheduler[0].body.properties.sku == { name = "Consumption" } && azapi_resource.scheduler[0].body.properties.publicNetworkAccess == "Enabled"
    error_message = "By default the scheduler is paid for by the action."
  }
  assert {
    condition     = can(regex("^[A-Za-z][A-Za-z0-9]{2,44}$", azapi_resource.task_hub[0].name)) && local.settings_durable.TASKHUB_NAME == azapi_resource.task_hub[0].name
    error_message = "host.json takes the hub's name from TASKHUB_NAME, and Azure Storage would take letters and digits only."
  }
  assert {
    condition     = !contains(keys(local.settings_durable), "AzureFunctionsJobHost__extensions__durableTask__storageProvider__type")
    error_message = "host.json names the scheduler; nothing overrides it."
  }
}

run "a_dedicated_scheduler_has_capacity" {
  command = plan

  variables {
    durable_sku          = "Dedicated"
    durable_capacity     = 3
    durable_ip_allowlist = ["203.0.113.0/24"]
    private_networking   = true
  }

  assert {
    condition     = azapi_resource.scheduler[0].body.properties.sku == { name = "Dedicated", capacity = 3 } && join(",", azapi_resource.scheduler[0].body.properties.ipAllowlist) == "203.0.113.0/24"
    error_message = "SKU, capacity and address ranges are the operator's."
  }
  assert {
    condition     = azapi_resource.scheduler[0].body.properties.publicNetworkAccess == "Disabled"
    error_message = "In a private network nobody reaches the scheduler from outside."
  }
}

run "azure_storage_needs_no_scheduler" {
  command = plan

  variables {
    durable_backend = "AzureStorage"
  }

  assert {
    condition     = length(azapi_resource.scheduler) == 0 && length(azapi_resource.task_hub) == 0
    error_message = "Nothing of the scheduler is made."
  }
  assert {
    condition = local.settings_durable == {
      TASKHUB_NAME                                                                          = "switchyarddev"
      AzureFunctionsJobHost__extensions__durableTask__storageProvider__type                 = "AzureStorage"
      AzureFunctionsJobHost__extensions__durableTask__storageProvider__connectionStringName = "AzureWebJobsStorage"
    }
    error_message = "Both settings override host.json, and no connection string of a scheduler is left."
  }
}

run "refuses_bad_values" {
  command = plan

  variables {
    durable_backend      = "MSSQL"
    durable_sku          = "Free"
    durable_ip_allowlist = ["everywhere"]
  }

  expect_failures = [var.durable_backend, var.durable_sku, var.durable_ip_allowlist]
}

run "refuses_capacity_of_what_has_none" {
  command = plan

  variables {
    durable_capacity = 2
  }

  expect_failures = [var.durable_capacity]
}
