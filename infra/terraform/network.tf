# The virtual network, off unless var.private_networking: a subnet for the function app's outbound calls, one for private endpoints.

locals {
  # What the function app's virtualNetworkSubnetId is: null when it stays outside.
  function_subnet_id = null
}
