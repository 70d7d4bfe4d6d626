# Secrets the code can't do without. They are written through Resource Manager, which needs neither a role on the vault's data
# nor a network route to it, and by write-only arguments: they stand in no state and in no plan file.

locals {
  # Application setting => what its Key Vault reference points to.
  secret_names = { for setting in local.secret_settings : setting => lower(replace(setting, "_", "-")) }

  secret_settings = toset(concat(
    ["SWITCHYARD_ADMIN_KEY"],
    length(var.webhook_hosts) > 0 ? ["SWITCHYARD_WEBHOOK_SECRET"] : [],
    keys(var.provider_key_versions),
    nonsensitive(keys(local.secrets_optional)),
  ))

  # A secret is written when its version here changes, and at no other time.
  secret_versions = merge(
    {
      SWITCHYARD_ADMIN_KEY      = tostring(var.admin_key_version)
      SWITCHYARD_WEBHOOK_SECRET = tostring(var.webhook_secret_version)
    },
    { for setting, version in var.provider_key_versions : setting => tostring(version) },
    # Values that Terraform knows anyway are told apart by their hash.
    { for setting, value in local.secrets_optional : setting => sha256(value) },
  )

  # Without a version: the app picks a new one up within a day, or when it is told to (output refresh_secrets_command).
  settings_secrets = {
    for setting, name in local.secret_names : setting => "@Microsoft.KeyVault(SecretUri=${azurerm_key_vault.main.vault_uri}secrets/${name})"
  }

  # 244 random bits for each, drawn when it is written: receivers of webhooks know theirs, and must not know the administrator's key
  # by that. While planning it is a fixed text instead: uuid() would be unknown then, and azapi takes an unknown secret for a changed
  # one.
  random_keys = {
    for setting in ["SWITCHYARD_ADMIN_KEY", "SWITCHYARD_WEBHOOK_SECRET"] :
    setting => terraform.applying ? sha256("${uuid()}${uuid()}") : "${setting} is drawn while applying"
  }

  key_vault_readers = toset([for id in coalesce(var.key_vault_readers, toset([data.azurerm_client_config.current.object_id])) : lower(id)])
}

resource "azurerm_key_vault" "main" {
  name                = "kv-${substr(local.compact, 0, 14)}-${local.suffix}"
  resource_group_name = azurerm_resource_group.main.name
  location            = azurerm_resource_group.main.location
  tags                = local.tags

  tenant_id                     = data.azurerm_client_config.current.tenant_id
  sku_name                      = "standard"
  rbac_authorization_enabled    = true
  public_network_access_enabled = !var.private_networking
  soft_delete_retention_days    = 7
  purge_protection_enabled      = var.key_vault_purge_protection

  network_acls {
    bypass         = "AzureServices"
    default_action = var.private_networking ? "Deny" : "Allow"
  }
}

# An action, not a resource: Resource Manager can write a secret but not delete one, so a resource could never be destroyed. The
# secrets go with the vault.
resource "azapi_resource_action" "secret" {
  for_each = local.secret_names

  type        = "Microsoft.KeyVault/vaults/secrets@2023-07-01"
  resource_id = "${azurerm_key_vault.main.id}/secrets/${each.value}"
  method      = "PUT"

  body = { properties = { contentType = "text/plain" } }

  sensitive_body = {
    properties = {
      value = (
        each.key == "SWITCHYARD_ADMIN_KEY" ? coalesce(var.admin_key, local.random_keys[each.key]) :
        each.key == "SWITCHYARD_WEBHOOK_SECRET" ? coalesce(var.webhook_secret, local.random_keys[each.key]) :
        # Null where the value is not told: no matter while its version stays, and refused by Azure when it is new.
        try(var.provider_keys[each.key], local.secrets_optional[each.key], null)
      )
    }
  }

  sensitive_body_version = { "properties.value" = local.secret_versions[each.key] }

  response_export_values = []
}

# Whoever runs the platform reads the administrator's key, and that one alone.
resource "azurerm_role_assignment" "key_vault_reader" {
  for_each = local.key_vault_readers

  scope                = azapi_resource_action.secret["SWITCHYARD_ADMIN_KEY"].resource_id
  role_definition_name = "Key Vault Secrets User"
  principal_id         = each.value
}
