variable "log_retention_days" {
  description = "Days the workspace keeps logs and telemetry. Tables of Application Insights are free for 90 days."
  type        = number
  default     = 90
  nullable    = false

  validation {
    condition     = var.log_retention_days >= 30 && var.log_retention_days <= 730 && floor(var.log_retention_days) == var.log_retention_days
    error_message = "Set log_retention_days to a whole number, 30-730: that is what a pay-as-you-go workspace keeps."
  }
}

variable "log_daily_quota_gb" {
  description = "Gigabytes a day after which the workspace takes no more until the next day; -1 for no cap."
  type        = number
  default     = 5
  nullable    = false

  validation {
    condition     = var.log_daily_quota_gb == -1 || var.log_daily_quota_gb >= 0.1
    error_message = "Set log_daily_quota_gb to 0.1 or more, or to -1 for no cap."
  }
}

variable "trace_sampling_ratio" {
  description = "Share of the requests whose spans are exported, 0-1. Metrics, and so all money, are never sampled."
  type        = number
  default     = 1
  nullable    = false

  validation {
    condition     = var.trace_sampling_ratio >= 0 && var.trace_sampling_ratio <= 1
    error_message = "Set trace_sampling_ratio to a share between 0 (no spans) and 1 (every request)."
  }
}

variable "metric_export_interval_ms" {
  description = "Milliseconds between two exports of metrics. Shorter is fresher, and costs more ingestion."
  type        = number
  default     = 60000
  nullable    = false

  validation {
    condition     = var.metric_export_interval_ms >= 1000 && var.metric_export_interval_ms <= 60000 && floor(var.metric_export_interval_ms) == var.metric_export_interval_ms
    error_message = "Set metric_export_interval_ms to a whole number, 1000-60000 (one second to a minute): how long a breaker is open is counted in minutes that told so, and its alert wants five of ten."
  }
}

variable "capture_message_content" {
  description = "Whether prompts and answers are written into spans. Whoever may read the workspace can then read them."
  type        = bool
  default     = false
  nullable    = false
}

variable "log_price_usd_per_gb" {
  description = "US dollars for a gigabyte of ingestion, for the workbook and the alert: Azure's list price of your region for pay-as-you-go analytics logs."
  type        = number
  default     = 2.3
  nullable    = false

  validation {
    condition     = var.log_price_usd_per_gb > 0
    error_message = "Set log_price_usd_per_gb to the price on Azure Monitor's pricing page, such as 2.3."
  }
}
