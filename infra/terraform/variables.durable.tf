variable "durable_backend" {
  type        = string
  default     = "DurableTaskScheduler"
  nullable    = false
  description = "Where chains and batches keep their histories: DurableTaskScheduler, or AzureStorage (the storage account; nothing else to pay, more storage calls). Let what is in flight end before a change: docs/runbook.md."

  validation {
    condition     = contains(["DurableTaskScheduler", "AzureStorage"], var.durable_backend)
    error_message = "durable_backend must be DurableTaskScheduler or AzureStorage."
  }
}

variable "durable_sku" {
  type        = string
  default     = "Consumption"
  nullable    = false
  description = "Durable Task Scheduler's SKU: Consumption (by the action, nothing at idle) or Dedicated (by the capacity unit)."

  validation {
    condition     = contains(["Consumption", "Dedicated"], var.durable_sku)
    error_message = "durable_sku must be Consumption or Dedicated."
  }
}

variable "durable_capacity" {
  type        = number
  default     = 1
  nullable    = false
  description = "Capacity units of a Dedicated scheduler; three and more are spread over zones."

  validation {
    condition     = contains([1, 2, 3], var.durable_capacity)
    error_message = "durable_capacity must be 1, 2 or 3."
  }

  validation {
    condition     = var.durable_capacity == 1 || var.durable_sku == "Dedicated"
    error_message = "durable_capacity is for durable_sku = \"Dedicated\": a Consumption scheduler has none."
  }
}

variable "durable_ip_allowlist" {
  type        = list(string)
  default     = ["0.0.0.0/0"]
  nullable    = false
  description = "Address ranges that may reach the scheduler. Whoever does still needs a role; a Flex Consumption app without a network has no fixed address."

  validation {
    condition     = length(var.durable_ip_allowlist) > 0 && alltrue([for range in var.durable_ip_allowlist : can(cidrhost(range, 0))])
    error_message = "durable_ip_allowlist must list at least one address range such as 203.0.113.0/24; 0.0.0.0/0 is everywhere."
  }
}
