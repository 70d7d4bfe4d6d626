# What everything else stands on: names, tags, the resource group, the app's identity.

data "azurerm_client_config" "current" {}

locals {
  name = "${var.prefix}-${var.environment}"

  # For resources that allow no dash.
  compact = "${var.prefix}${var.environment}"

  # For names that must be unique in all of Azure: the same at every apply, another in every subscription.
  suffix = substr(sha256("${var.subscription_id}/${var.prefix}/${var.environment}"), 0, 6)

  # Cost management groups and filters by these.
  tags = merge(
    {
      for key, value in { application = var.prefix, environment = var.environment, managed-by = "terraform" } :
      # Azure takes `Environment` and `environment` for one key, and refuses both together.
      key => value if !contains([for own in keys(var.tags) : lower(own)], key)
    },
    var.tags,
  )
}

resource "azurerm_resource_group" "main" {
  name     = "rg-${local.name}"
  location = var.location
  tags     = local.tags
}

# One identity for the app, made before it: its roles are there when the app starts, and they outlive the app's replacement.
resource "azurerm_user_assigned_identity" "app" {
  name                = "id-${local.name}"
  resource_group_name = azurerm_resource_group.main.name
  location            = azurerm_resource_group.main.location
  tags                = local.tags
}
