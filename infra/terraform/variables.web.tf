variable "web_enabled" {
  type        = bool
  default     = false
  nullable    = false
  description = "Make a Static Web App to host the web dashboard, and let pages from there call the gateway."
}

variable "web_sku" {
  type        = string
  default     = "Free"
  nullable    = false
  description = "Free, or Standard: a service level, private endpoints and more bandwidth."

  validation {
    condition     = contains(["Free", "Standard"], var.web_sku)
    error_message = "web_sku must be Free or Standard."
  }
}

variable "web_location" {
  type        = string
  default     = "westeurope"
  nullable    = false
  description = "Region that manages the Static Web App; its files are served worldwide."

  validation {
    condition     = contains(["centralus", "eastasia", "eastus2", "westeurope", "westus2"], var.web_location)
    error_message = "web_location must be one of the regions of Static Web Apps: centralus, eastasia, eastus2, westeurope, westus2."
  }
}
