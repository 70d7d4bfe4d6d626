output "api_management_endpoint" {
  description = "API Management's address; null without it."
  value       = local.api_management_endpoint
}
