output "front_door_endpoint" {
  description = "Front Door's address; null without it."
  value       = local.front_door_endpoint
}

output "front_door_approval_command" {
  description = "What to run once, so that the function app accepts Front Door's private link; null without one."
  value = !var.front_door_private_link ? null : join(" ", [
    "az network private-endpoint-connection list --id ${azapi_resource.function_app.id}",
    "--query \"[?properties.privateLinkServiceConnectionState.status=='Pending'].id\" -o tsv |",
    "xargs -n 1 az network private-endpoint-connection approve --description ${local.name} --id",
  ])
}
