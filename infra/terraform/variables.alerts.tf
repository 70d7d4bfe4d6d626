variable "alerts_enabled" {
  description = "Whether alerts are evaluated and tell anybody. false keeps every rule, switched off, at no cost."
  type        = bool
  default     = true
  nullable    = false
}

variable "alert_emails" {
  description = "Who is told of alerts by e-mail: a name for the receiver => its address."
  type        = map(string)
  default     = {}
  nullable    = false

  validation {
    condition     = alltrue([for address in values(var.alert_emails) : can(regex("^[^@\\s]+@[^@\\s]+\\.[^@\\s]+$", address))])
    error_message = "Give alert_emails as name => address, as in { oncall = \"oncall@example.com\" }."
  }
}

variable "alert_webhooks" {
  description = "What is called on alerts, with Azure's common alert schema: a name for the receiver => its https URL. Secret, because such a URL often holds a token."
  type        = map(string)
  default     = {}
  nullable    = false
  sensitive   = true

  validation {
    condition     = alltrue([for url in values(var.alert_webhooks) : try(startswith(url, "https://"), false)])
    error_message = "Give alert_webhooks as name => URL, beginning with https://."
  }
}

variable "alert_thresholds" {
  description = "From when on people are told."
  type = object({
    error_percent         = optional(number, 5)              # failed requests, of 15 minutes
    p95_seconds           = optional(number, 30)             # what 95 % of the callers of 15 minutes waited at most
    throttled_percent     = optional(number, 20)             # attempts a deployment refused, of 15 minutes
    queue_age_seconds     = optional(number, 900)            # oldest background work that has not begun
    ingestion_usd_per_day = optional(number, 10)             # at log_price_usd_per_gb; never above nine tenths of log_daily_quota_gb
    budget_percents       = optional(set(number), [80, 100]) # of the gateway's own budgets
    minimum_requests      = optional(number, 20)             # in 15 minutes; fewer say nothing of shares and percentiles
  })
  default  = {}
  nullable = false

  validation {
    condition = alltrue([
      for percent in concat([var.alert_thresholds.error_percent, var.alert_thresholds.throttled_percent], tolist(var.alert_thresholds.budget_percents)) :
      percent > 0 && percent <= 100
    ])
    error_message = "Percentages of alert_thresholds must be above 0 and at most 100."
  }

  validation {
    condition = alltrue([
      for amount in [var.alert_thresholds.p95_seconds, var.alert_thresholds.queue_age_seconds, var.alert_thresholds.ingestion_usd_per_day, var.alert_thresholds.minimum_requests] :
      amount > 0
    ])
    error_message = "p95_seconds, queue_age_seconds, ingestion_usd_per_day and minimum_requests of alert_thresholds must be above 0; switch alerts off with alerts_enabled = false."
  }
}

variable "availability_test" {
  description = "Web tests of /v1/health/live from several places, each paid per run: five places every 15 minutes are about 14,600 runs a month. Not made where the gateway has no public address."
  type = object({
    enabled          = optional(bool, true)
    locations        = optional(list(string), ["emea-nl-ams-azr", "emea-gb-db3-azr", "us-va-ash-azr", "us-ca-sjc-azr", "apac-sg-sin-azr"])
    every_seconds    = optional(number, 900)
    failed_locations = optional(number, 2)
  })
  default  = {}
  nullable = false

  validation {
    condition     = contains([300, 600, 900], var.availability_test.every_seconds)
    error_message = "Set every_seconds of availability_test to 300, 600 or 900: Azure tests at no other pace."
  }

  validation {
    condition     = length(var.availability_test.locations) >= 1 && contains(range(1, length(var.availability_test.locations) + 1), var.availability_test.failed_locations)
    error_message = "availability_test needs one location or more, and failed_locations, a whole number between 1 and theirs."
  }

  validation {
    condition     = length(distinct(var.availability_test.locations)) == length(var.availability_test.locations) && alltrue([for id in var.availability_test.locations : can(regex("^[a-z0-9-]+-azr$", id))])
    error_message = "locations of availability_test are Azure's ids of places, each once, such as emea-nl-ams-azr."
  }
}
