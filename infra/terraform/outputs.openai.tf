output "catalog_environment" {
  description = "The environment the catalog refers to: what the app is told about the models. A gateway on your own machine takes the same, with your own sign-in."
  value       = local.settings_openai
}

output "openai_endpoints" {
  description = "The model accounts by region, the first one first."
  value       = [for region in local.openai_order : { region = region, endpoint = local.openai_endpoints[region] }]
}
