output "virtual_network_id" {
  description = "The virtual network, to peer with; null without private networking."
  value       = one(azurerm_virtual_network.main[*].id)
}

output "outbound_address" {
  description = "The address outside providers see; null unless fixed_outbound_address is on."
  value       = one(azurerm_public_ip.outbound[*].ip_address)
}
