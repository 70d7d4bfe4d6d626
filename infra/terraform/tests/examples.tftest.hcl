# Whatever tfvars are given with -var-file are planned and applied, with nothing added: `-var-file=examples/standard.tfvars`.

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

run "applies" {
  assert {
    condition     = startswith(output.endpoint, "https://") && output.function_app_name == local.function_app_name
    error_message = "An applied installation has an address and a function app."
  }
}
