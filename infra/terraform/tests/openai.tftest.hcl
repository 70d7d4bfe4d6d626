# Regions and deployments: what is made, what the app is told, what is refused.

mock_provider "azurerm" {
  mock_resource "azurerm_cognitive_account" {
    override_during = plan
    defaults = {
      id = "/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/rg/providers/Microsoft.CognitiveServices/accounts/account"
    }
  }
}

mock_provider "azapi" {}

variables {
  subscription_id = "00000000-0000-0000-0000-000000000000"
}

run "defaults" {
  command = plan

  assert {
    condition     = join(" ", keys(azurerm_cognitive_account.openai)) == "swedencentral"
    error_message = "Without a list of regions there is one account, where everything else is."
  }

  assert {
    condition = alltrue([
      for one in values(azurerm_cognitive_account.openai) :
      !one.local_auth_enabled && one.location == "swedencentral" && one.public_network_access_enabled && one.kind == "AIServices" && one.custom_subdomain_name == one.name
    ])
    error_message = "An account takes no keys, and has a subdomain, which Entra ID wants."
  }

  assert {
    condition = alltrue([
      for one in values(azurerm_cognitive_deployment.model) :
      one.sku[0].name == "GlobalStandard" && one.model[0].format == "OpenAI" && one.model[0].version != null && one.version_upgrade_option == "OnceCurrentVersionExpired"
    ])
    error_message = "The default models are OpenAI's, paid by the token, at a version that is told."
  }

  assert {
    condition     = jsonencode(local.roles_openai) == jsonencode({ openai_swedencentral = { role = "Cognitive Services OpenAI User", scope = azurerm_cognitive_account.openai["swedencentral"].id } })
    error_message = "The app may call OpenAI's models and nothing else."
  }

  assert {
    condition     = join(" ", keys(local.settings_openai)) == "AZURE_OPENAI_ENDPOINT SWITCHYARD_DEPLOYMENTS"
    error_message = "The app is told the deployments and the home account."
  }
}

# tests/infra/test_catalog_meets_infrastructure.py loads the same file into the gateway's registry.
run "regions_and_provisioned_capacity" {
  command = plan

  variables {
    openai_regions = {
      eastus2 = {
        deployments = [
          { model = "gpt-5-mini", version = "2025-08-07", sku = "DataZoneStandard", capacity = 200, requests_per_minute = 500 },
          { model = "gpt-5-mini", version = "2025-08-07", capacity = 50, name = "gpt-5-mini-global" },
          { model = "DeepSeek-V3.2", version = "1", capacity = 20 },
        ]
      }
      swedencentral = {
        deployments = [
          { model = "gpt-5-mini", version = "2025-08-07", capacity = 100 },
          { model = "gpt-5-mini", version = "2025-08-07", sku = "GlobalProvisionedManaged", capacity = 15 },
          { model = "text-embedding-3-small", version = "1", capacity = 100 },
        ]
      }
    }
  }

  assert {
    condition     = local.settings_openai.SWITCHYARD_DEPLOYMENTS == jsonencode(jsondecode(file("tests/openai.deployments.json")))
    error_message = "The app is told what tests/openai.deployments.json says; the actual text is ${local.settings_openai.SWITCHYARD_DEPLOYMENTS}"
  }

  assert {
    condition = toset(keys(azurerm_cognitive_deployment.model)) == toset([
      "eastus2/DeepSeek-V3.2", "eastus2/gpt-5-mini", "eastus2/gpt-5-mini-global",
      "swedencentral/gpt-5-mini", "swedencentral/gpt-5-mini-provisioned", "swedencentral/text-embedding-3-small",
    ])
    error_message = "Every deployment of every region is made, the provisioned one under a name of its own."
  }

  assert {
    condition     = azurerm_cognitive_deployment.model["eastus2/DeepSeek-V3.2"].model[0].format == "DeepSeek"
    error_message = "A publisher is told by the model's name."
  }

  assert {
    condition = jsonencode({ for key, role in local.roles_openai : key => role.role }) == jsonencode({
      openai_eastus2       = "Cognitive Services OpenAI User"
      openai_swedencentral = "Cognitive Services OpenAI User"
      foundry_eastus2      = "Cognitive Services User"
    })
    error_message = "Only an account with other publishers' models needs the wider role."
  }

  assert {
    condition     = endswith(local.settings_openai.AZURE_OPENAI_ENDPOINT, ".openai.azure.com") && strcontains(local.settings_openai.AZURE_OPENAI_ENDPOINT, "swedencentral")
    error_message = "Home is the region of everything else."
  }
}

run "further_regions_are_one_line_each" {
  command = plan

  variables {
    openai_regions     = { swedencentral = { priority = 10 }, eastus2 = { priority = 2 } }
    private_networking = true
    foundry_claude     = true
  }

  assert {
    condition     = length(azurerm_cognitive_deployment.model) == 2 * length(var.openai_deployments)
    error_message = "A region that lists nothing has the models of openai_deployments."
  }

  assert {
    condition     = join(" ", [for one in output.openai_endpoints : one.region]) == "eastus2 swedencentral"
    error_message = "The lowest priority first: by number, not by letter."
  }

  assert {
    condition     = !anytrue([for one in values(azurerm_cognitive_account.openai) : one.public_network_access_enabled])
    error_message = "With private networking an account is reached over its private endpoint only."
  }

  assert {
    condition     = strcontains(local.settings_openai.AZURE_FOUNDRY_ENDPOINT, "-eastus2-") && endswith(local.settings_openai.AZURE_FOUNDRY_ENDPOINT, ".services.ai.azure.com") && local.roles_openai["foundry_eastus2"].role == "Cognitive Services User" && !contains(keys(local.roles_openai), "foundry_swedencentral")
    error_message = "The app is told where the Claude of the first region is, and may call it there."
  }
}

run "no_models_on_azure" {
  command = plan

  variables {
    openai_regions = {}
  }

  assert {
    condition     = length(azurerm_cognitive_account.openai) + length(local.settings_openai) + length(local.roles_openai) == 0
    error_message = "Nothing is made, told or allowed."
  }
}

# ---- refused -----------------------------------------------------------------------------------------------------------

run "unknown_sku" {
  command = plan

  variables {
    openai_regions = { swedencentral = { deployments = [{ model = "gpt-5-mini", version = "2025-08-07", sku = "GlobalBatch", capacity = 1 }] } }
  }

  expect_failures = [var.openai_regions]
}

run "no_capacity" {
  command = plan

  variables {
    openai_deployments = [{ model = "gpt-5-mini", version = "2025-08-07", capacity = 0 }]
  }

  expect_failures = [var.openai_regions]
}

run "the_same_name_twice" {
  command = plan

  variables {
    openai_regions = {
      swedencentral = {
        deployments = [
          { model = "gpt-5-mini", version = "2025-08-07", capacity = 1 },
          { model = "gpt-5-mini", version = "2025-08-07", sku = "DataZoneStandard", capacity = 1 },
        ]
      }
    }
  }

  expect_failures = [var.openai_regions]
}

run "a_region_without_deployments" {
  command = plan

  variables {
    openai_regions = { swedencentral = { deployments = [] } }
  }

  expect_failures = [var.openai_regions]
}

run "a_region_by_its_display_name" {
  command = plan

  variables {
    openai_regions = { "Sweden Central" = {} }
  }

  expect_failures = [var.openai_regions]
}

run "claude_by_terraform" {
  command = plan

  variables {
    openai_deployments = [{ model = "claude-opus-5", version = "1", capacity = 1 }]
  }

  expect_failures = [var.openai_regions]
}
