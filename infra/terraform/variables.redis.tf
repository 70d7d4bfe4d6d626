variable "redis_enabled" {
  type        = bool
  default     = false
  nullable    = false
  description = "Count rate limits in Azure Managed Redis rather than in tables: worth its price from some hundred requests a second on one key. Deploy again after turning it on: the package then has another library."
}

variable "redis_sku" {
  type        = string
  default     = "Balanced_B0"
  nullable    = false
  description = "SKU of Azure Managed Redis. Counters take some hundred bytes for each key and project: the smallest holds a million."

  validation {
    condition     = can(regex("^(Balanced_B|MemoryOptimized_M|ComputeOptimized_X|FlashOptimized_A)[0-9]+$", var.redis_sku))
    error_message = "redis_sku must be a SKU of Azure Managed Redis such as Balanced_B0, Balanced_B1 or ComputeOptimized_X3."
  }
}

variable "redis_high_availability" {
  type        = bool
  default     = false
  nullable    = false
  description = "Two nodes rather than one, at twice the price. Without it a restart loses a minute of counts, and the tables count meanwhile."
}
