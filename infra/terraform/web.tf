# The web dashboard's host, off unless var.web_enabled: files only. It calls the gateway from the browser, with the user's key.

resource "azurerm_static_web_app" "main" {
  count = var.web_enabled ? 1 : 0

  name                = "stapp-${local.name}-${local.suffix}"
  resource_group_name = azurerm_resource_group.main.name
  location            = var.web_location
  sku_tier            = var.web_sku
  sku_size            = var.web_sku
  # A preview has another host name, which the gateway would not answer.
  preview_environments_enabled = false
  tags                         = local.tags
}
