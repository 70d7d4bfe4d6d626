locals {
  resource_providers = concat([
    "Microsoft.AlertsManagement",
    "Microsoft.App", # The Flex Consumption app joins a network through Microsoft.App/environments.
    "Microsoft.Authorization",
    "Microsoft.CognitiveServices",
    "Microsoft.Consumption",
    "Microsoft.DurableTask",
    "Microsoft.Insights",
    "Microsoft.KeyVault",
    "Microsoft.ManagedIdentity",
    "Microsoft.OperationalInsights",
    "Microsoft.Portal",
    "Microsoft.Storage",
    "Microsoft.Web",
  ], local.resource_providers_optional)

  resource_providers_registered = var.register_resource_providers ? local.resource_providers : []
}

provider "azurerm" {
  subscription_id = var.subscription_id

  # The storage account refuses shared keys, so data-plane calls of the provider must use Entra ID.
  storage_use_azuread = true

  # 5.x registers nothing unless told to. An empty subscription has none of these.
  resource_providers_to_register = local.resource_providers_registered

  # What is destroyed is gone: nothing soft-deleted may hold a name, or a model's quota, against the next `apply`.
  features {
    api_management {
      purge_soft_delete_on_destroy = true
      recover_soft_deleted         = false
    }

    cognitive_account {
      purge_soft_delete_on_destroy = true
    }

    key_vault {
      # Azure refuses to purge a vault with purge protection: set `key_vault_purge_protection` only where that is wanted.
      purge_soft_delete_on_destroy    = !var.key_vault_purge_protection
      recover_soft_deleted_key_vaults = true
    }

    log_analytics_workspace {
      permanently_delete_on_destroy = true
    }

    resource_group {
      # Application Insights makes a smart-detection action group and rule of its own, which Terraform doesn't know: they go with
      # the group. So does whatever else was put into it by hand.
      prevent_deletion_if_contains_resources = false
    }

    storage {
      # Nothing here needs the account's data plane, which a private account hides from whoever runs `apply`.
      data_plane_available = false
    }
  }
}

provider "azapi" {
  subscription_id = var.subscription_id

  # azapi would keep whole answers of the API in the state; resources name what they need instead.
  disable_default_output = true
}
