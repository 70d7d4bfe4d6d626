# Secrets: who may read them, and when they are written.

mock_provider "azurerm" {
  mock_resource "azurerm_key_vault" {
    defaults = {
      id        = "/subscriptions/11111111-1111-4111-8111-111111111111/resourceGroups/rg-switchyard-dev/providers/Microsoft.KeyVault/vaults/kv"
      vault_uri = "https://kv.vault.azure.net/"
    }
  }
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
  openai_regions  = {}
}

run "an_administrators_key_is_made" {
  assert {
    condition     = join(",", keys(azapi_resource_action.secret)) == "SWITCHYARD_ADMIN_KEY" && azapi_resource_action.secret["SWITCHYARD_ADMIN_KEY"].method == "PUT"
    error_message = "Without anything being asked for there is one secret."
  }
  assert {
    condition     = local.app_settings.SWITCHYARD_ADMIN_KEY == "@Microsoft.KeyVault(SecretUri=https://kv.vault.azure.net/secrets/switchyard-admin-key)"
    error_message = "The app's setting refers to the secret, without a version, so that a new one is picked up."
  }
  assert {
    condition     = join(",", keys(azurerm_role_assignment.key_vault_reader)) == "33333333-3333-4333-8333-333333333333"
    error_message = "Whoever applies may read the administrator's key."
  }
  assert {
    condition     = endswith(azurerm_role_assignment.key_vault_reader["33333333-3333-4333-8333-333333333333"].scope, "/secrets/switchyard-admin-key")
    error_message = "That key, and no other secret."
  }
  assert {
    condition     = azurerm_key_vault.main.rbac_authorization_enabled && azurerm_key_vault.main.soft_delete_retention_days == 7 && !azurerm_key_vault.main.purge_protection_enabled
    error_message = "Roles instead of access policies, and nothing that outlives `terraform destroy` unless asked for."
  }
  assert {
    condition     = local.random_keys["SWITCHYARD_ADMIN_KEY"] != local.random_keys["SWITCHYARD_WEBHOOK_SECRET"]
    error_message = "A key must be drawn for each: who verifies webhooks holds theirs, and must not hold the administrator's by that."
  }
  assert {
    condition     = endswith(output.refresh_secrets_command, "${azapi_resource.function_app.id}/config/configreferences/appsettings/refresh?api-version=2022-03-01'")
    error_message = "A new key must reach the app before a day is over."
  }
  assert {
    condition     = strcontains(output.admin_key_command, "--name switchyard-admin-key")
    error_message = "The output tells how to read the key."
  }
}

# The state of the run before: nothing may be written again.
run "planning_again_writes_nothing" {
  command = plan

  assert {
    condition     = azapi_resource_action.secret["SWITCHYARD_ADMIN_KEY"].sensitive_body_version == tomap({ "properties.value" = "1" })
    error_message = "The version is what decides whether a secret is written."
  }
}

run "keys_of_providers_become_references" {
  command = plan

  variables {
    provider_key_versions = { OPENAI_API_KEY = 2, HF_TOKEN = 1 }
    provider_keys         = { OPENAI_API_KEY = "sk-from-the-environment" }
    webhook_hosts         = ["hooks.example.com"]
    admin_key_version     = 3
  }

  assert {
    condition = { for setting, one in azapi_resource_action.secret : setting => one.sensitive_body_version["properties.value"] } == {
      HF_TOKEN                  = "1"
      OPENAI_API_KEY            = "2"
      SWITCHYARD_ADMIN_KEY      = "3"
      SWITCHYARD_WEBHOOK_SECRET = "1"
    }
    error_message = "Each key is a secret with a version of its own; webhooks are signed."
  }
  assert {
    condition     = endswith(local.settings_secrets.HF_TOKEN, "secrets/hf-token)") && local.settings_core.SWITCHYARD_WEBHOOK_HOSTS == "hooks.example.com"
    error_message = "Vaults know no underscores."
  }
}

run "several_readers" {
  command = plan

  variables {
    key_vault_readers          = ["44444444-4444-4444-8444-444444444444", "AAAAAAAA-5555-4555-8555-555555555555", "aaaaaaaa-5555-4555-8555-555555555555"]
    key_vault_purge_protection = true
  }

  assert {
    condition     = length(azurerm_role_assignment.key_vault_reader) == 2 && azurerm_key_vault.main.purge_protection_enabled
    error_message = "The readers are who was named, each once."
  }
}

run "refuses_short_or_spaced_keys" {
  command = plan

  variables {
    admin_key              = "too short"
    admin_key_version      = 0
    webhook_secret         = "0123456789abcde"
    webhook_secret_version = 1.5
    key_vault_readers      = ["me@example.com"]
  }

  expect_failures = [var.admin_key, var.admin_key_version, var.webhook_secret, var.webhook_secret_version, var.key_vault_readers]
}

run "refuses_names_that_are_no_keys" {
  command = plan

  variables {
    provider_key_versions = { "openai-api-key" = 1 }
  }

  expect_failures = [var.provider_key_versions]
}

run "refuses_a_value_without_a_version" {
  command = plan

  variables {
    provider_keys = { OPENAI_API_KEY = "sk-from-the-environment" }
  }

  expect_failures = [var.provider_keys]
}
