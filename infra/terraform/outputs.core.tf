output "endpoint" {
  description = "Where callers find the gateway: the part in front of the function app, where there is one."
  value       = local.public_endpoint
}

output "function_app_name" {
  description = "The function app, for `func`, `az functionapp` and the deployment workflow."
  value       = azapi_resource.function_app.name
}

output "function_app_url" {
  description = "The function app itself."
  value       = local.endpoint
}

output "resource_group_name" {
  description = "The resource group that holds everything."
  value       = azurerm_resource_group.main.name
}

output "storage_account_name" {
  description = "The account that holds the tables, the ledger among them, and the deployed package."
  value       = azurerm_storage_account.main.name
}

output "key_vault_name" {
  description = "The vault that holds the administrator's key and those of outside providers."
  value       = azurerm_key_vault.main.name
}

output "admin_key_command" {
  description = "Prints the administrator's key, for those in key_vault_readers. With private networking: from inside the network."
  value       = "az keyvault secret show --vault-name ${azurerm_key_vault.main.name} --name ${local.secret_names["SWITCHYARD_ADMIN_KEY"]} --query value --output tsv"
}

output "refresh_secrets_command" {
  description = "Has the app read its secrets from Key Vault anew: a restart alone doesn't always."
  value       = "az rest --method post --url 'https://management.azure.com${azapi_resource.function_app.id}/config/configreferences/appsettings/refresh?api-version=2022-03-01'"
}

output "deploy_command" {
  description = "Deploys the code, from the repository's root."
  value       = "make deploy"
}

output "try_command" {
  description = "A first request, with the administrator's key in ADMIN_KEY."
  value       = "curl ${local.public_endpoint}/v1/chat/completions -H \"Authorization: Bearer $ADMIN_KEY\" -H 'Content-Type: application/json' -d '{\"model\": \"auto\", \"messages\": [{\"role\": \"user\", \"content\": \"Hello\"}]}'"
}
