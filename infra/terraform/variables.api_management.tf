variable "api_management_enabled" {
  type        = bool
  default     = false
  nullable    = false
  description = "Put Azure API Management in front, for organisations that publish all their APIs there."
}

variable "api_management_sku" {
  type        = string
  default     = "BasicV2_1"
  nullable    = false
  description = "SKU and units: BasicV2_1, StandardV2_1 (can join the virtual network), or Consumption_0 to try it out: that one ends every request after 30 seconds and holds streams back."

  validation {
    condition     = can(regex("^(Consumption_0|BasicV2_([1-9]|10)|StandardV2_([1-9]|10))$", var.api_management_sku))
    error_message = "api_management_sku must be Consumption_0, BasicV2_1 to BasicV2_10, or StandardV2_1 to StandardV2_10."
  }
  validation {
    condition     = !(var.api_management_enabled && var.private_inbound) || startswith(var.api_management_sku, "StandardV2_")
    error_message = "With private_inbound the function app has no public address: API Management needs api_management_sku = \"StandardV2_1\", which joins the virtual network."
  }
}

variable "api_management_publisher" {
  type        = object({ name = string, email = string })
  default     = { name = "Switchyard", email = "nobody@example.com" }
  nullable    = false
  description = "Name and address that API Management shows as the publisher's; it writes its notices there."

  validation {
    condition     = can(regex("^[^@ ]+@[^@ ]+\\.[^@ ]+$", var.api_management_publisher.email))
    error_message = "api_management_publisher.email must be an e-mail address."
  }
  validation {
    condition     = !var.api_management_enabled || !endswith(var.api_management_publisher.email, "@example.com")
    error_message = "api_management_enabled needs api_management_publisher = { name = …, email = … }: Azure sends its notices about the service there."
  }
}

variable "api_management_subscription_required" {
  type        = bool
  default     = false
  nullable    = false
  description = "Want a subscription key of API Management (header Ocp-Apim-Subscription-Key) beside the gateway's own. OpenAI's SDKs then need it as a default header. Only /v1/health stays open for probes."
}

variable "api_management_calls_per_minute" {
  type        = number
  default     = null
  description = "Calls a minute from one client address, above which API Management answers 429. Unset: no such limit; keys and projects have the gateway's own. Not with Consumption."

  validation {
    condition     = var.api_management_calls_per_minute == null || try(var.api_management_calls_per_minute >= 1 && floor(var.api_management_calls_per_minute) == var.api_management_calls_per_minute, false)
    error_message = "api_management_calls_per_minute must be a whole number from 1, or null."
  }
  validation {
    condition     = var.api_management_calls_per_minute == null || !startswith(var.api_management_sku, "Consumption")
    error_message = "api_management_calls_per_minute needs a V2 SKU: Consumption has no rate limit by address."
  }
}
