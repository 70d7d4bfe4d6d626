# Names, tags, identity, storage, and the roles of the app.

mock_provider "azurerm" {
  mock_data "azurerm_client_config" {
    defaults = {
      tenant_id = "22222222-2222-4222-8222-222222222222"
      object_id = "33333333-3333-4333-8333-333333333333"
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
}

run "names_come_from_one_prefix" {
  command = plan

  variables {
    prefix      = "gatewayforus"
    environment = "staging1"
  }

  assert {
    condition     = azurerm_resource_group.main.name == "rg-gatewayforus-staging1" && azurerm_user_assigned_identity.app.name == "id-gatewayforus-staging1"
    error_message = "A name is its kind, the prefix and the environment."
  }
  assert {
    condition     = can(regex("^stgatewayforusstag[0-9a-f]{6}$", azurerm_storage_account.main.name)) && length(azurerm_storage_account.main.name) == 24
    error_message = "The longest prefix must leave room for the suffix in 24 characters: lower-case letters and digits."
  }
  assert {
    condition     = can(regex("^kv-[a-z0-9]+-[0-9a-f]{6}$", azurerm_key_vault.main.name)) && length(azurerm_key_vault.main.name) <= 24
    error_message = "A vault's name has 24 characters at most."
  }
  assert {
    condition     = endswith(local.function_app_name, local.suffix) && can(regex("^[0-9a-f]{6}$", local.suffix))
    error_message = "What is unique in all of Azure ends with the suffix."
  }
}

run "tags_storage_and_roles" {
  command = plan

  variables {
    openai_regions = {}
    tags           = { cost-center = "4711", Environment = "development" }
  }

  assert {
    condition     = local.suffix == substr(sha256("11111111-1111-4111-8111-111111111111/switchyard/dev"), 0, 6)
    error_message = "The suffix must be the same at every apply, and another one for another installation."
  }
  assert {
    condition     = azurerm_resource_group.main.tags == tomap({ application = "switchyard", Environment = "development", managed-by = "terraform", cost-center = "4711" })
    error_message = "One's own tags are added, and win, in whatever case: Azure knows one key only."
  }
  assert {
    condition = alltrue([
      for tags in [
        azurerm_storage_account.main.tags, azurerm_key_vault.main.tags, azurerm_user_assigned_identity.app.tags,
        azapi_resource.plan.tags, azapi_resource.function_app.tags, azapi_resource.scheduler[0].tags,
      ] : tags == azurerm_resource_group.main.tags
    ])
    error_message = "What can carry tags carries all of them: cost management adds costs up by them."
  }
  assert {
    condition     = !azurerm_storage_account.main.shared_access_key_enabled && !azurerm_storage_account.main.allow_nested_items_to_be_public && !azurerm_storage_account.main.local_user_enabled
    error_message = "Neither shared keys, nor public blobs, nor local users."
  }
  assert {
    condition     = azurerm_storage_account.main.min_tls_version == "TLS1_2" && azurerm_storage_account.main.https_traffic_only_enabled
    error_message = "TLS 1.2 or newer, and nothing else."
  }
  assert {
    condition     = azurerm_storage_container.deployment.container_access_type == "private"
    error_message = "The package is nobody's business."
  }
  assert {
    condition     = toset(keys(azapi_resource.table)) == local.tables && length(local.tables) == 19
    error_message = "Every table is made by Resource Manager."
  }
  assert {
    condition = { for key, role in local.roles_core : key => role.role } == {
      storage_blobs  = "Storage Blob Data Owner"
      storage_tables = "Storage Table Data Contributor"
      key_vault      = "Key Vault Secrets User"
      task_hub       = "Durable Task Data Contributor"
    }
    error_message = "With the scheduler the app needs no queues."
  }
  assert {
    condition     = toset(keys(azurerm_role_assignment.app)) == toset(keys(local.roles_app))
    error_message = "Every role that a part asks for is assigned."
  }
  assert {
    condition     = alltrue([for one in azurerm_role_assignment.app : one.principal_type == "ServicePrincipal"])
    error_message = "The directory must not be asked for an identity it may not know yet."
  }
}

run "an_account_as_backend_needs_queues" {
  command = plan

  variables {
    durable_backend             = "AzureStorage"
    register_resource_providers = false
  }

  assert {
    condition     = length(local.resource_providers_registered) == 0 && contains(local.resource_providers, "Microsoft.Web")
    error_message = "An identity that may only read must be able to plan: it can't register anything."
  }

  assert {
    condition     = local.roles_core.storage_queues.role == "Storage Queue Data Contributor" && !contains(keys(local.roles_core), "task_hub")
    error_message = "Durable Functions on Azure Storage has its work in queues."
  }
}

run "refuses_bad_values" {
  command = plan

  variables {
    subscription_id = "my subscription"
    prefix          = "Switch-Yard"
    environment     = "production"
    location        = "Sweden Central"
    tags            = { for number in range(13) : "tag${number}" => "x" }

    storage_replication = "RAGRS"
    blob_retention_days = 0
  }

  expect_failures = [
    var.subscription_id, var.prefix, var.environment, var.location, var.tags, var.storage_replication, var.blob_retention_days,
  ]
}

# What passes for a value, and comes back from Azure as an error in the middle of an apply.
run "refuses_what_azure_would_refuse" {
  command = plan

  variables {
    prefix = "windowsfarm"
    tags   = { Owner = "one", owner = "two" }

    network_address_space = "10.64.0.5/24"
    linked_networks       = { main = "/subscriptions/11111111-1111-4111-8111-111111111111/resourceGroups/rg-hub/providers/Microsoft.Network/virtualNetworks/vnet-hub" }
    private_networking    = true

    log_retention_days        = 30.5
    metric_export_interval_ms = 1000.5
    availability_test         = { locations = ["emea-nl-ams-azr", "emea-nl-ams-azr"] }

    app_settings          = { functions_worker_runtime = "python" }
    always_ready          = { http = null }
    alert_webhooks        = { chat = null }
    provider_key_versions = { OPENAI_API_KEY = null }
    max_body_bytes        = 1073741824
  }

  expect_failures = [
    var.prefix, var.tags, var.network_address_space, var.linked_networks, var.log_retention_days, var.metric_export_interval_ms,
    var.availability_test, var.app_settings, var.always_ready, var.alert_webhooks, var.provider_key_versions, var.max_body_bytes,
  ]
}
