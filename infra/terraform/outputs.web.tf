output "web_url" {
  description = "Address of the web dashboard; null without it."
  value       = local.web_origin
}

output "web_publish_command" {
  description = "What publishes a folder of built files to it; null without it."
  value = !var.web_enabled ? null : join(" ", [
    "npx @azure/static-web-apps-cli deploy FOLDER --env production --deployment-token",
    "\"$(az staticwebapp secrets list --name ${azurerm_static_web_app.main[0].name} --query properties.apiKey -o tsv)\"",
  ])
}
