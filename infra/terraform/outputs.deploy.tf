output "subscription_id" {
  description = "The subscription everything is in; `make deploy` publishes there, whichever one the Azure CLI has selected."
  value       = var.subscription_id
}
