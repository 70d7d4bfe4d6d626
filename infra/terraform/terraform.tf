terraform {
  # Write-only arguments (1.11) keep secrets out of the state and of plan files.
  required_version = ">= 1.11, < 2.0"

  required_providers {
    # 5.x: a major version renames arguments (Key Vault, diagnostic settings, Front Door rules), so never the next one unseen.
    # 5.2 is the first that knows all the resources used here and was read, resource by resource, for the pitfalls noted beside them.
    azurerm = {
      source  = "hashicorp/azurerm"
      version = "~> 5.2"
    }

    # For what azurerm has not, or breaks: the Flex Consumption app with an identity's storage, tables without shared keys,
    # Durable Task Scheduler, and secrets that are written without a route to the vault. 2.12 has `sensitive_body_version`
    # on actions as well, and schemas of the API versions that are named here.
    azapi = {
      source  = "Azure/azapi"
      version = "~> 2.12"
    }
  }

  # State is kept on this machine unless a backend is set: see "Where the state is kept" in README.md.
}
