variable "private_networking" {
  type        = bool
  default     = false
  nullable    = false
  description = "Keep the platform's own traffic in a virtual network: the function app joins it, and storage, Key Vault and the model accounts are reached over private endpoints only, their public network access off."
}
