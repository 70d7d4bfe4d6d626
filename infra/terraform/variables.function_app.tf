variable "instance_memory_mb" {
  type        = number
  default     = 2048
  nullable    = false
  description = "Memory of an instance in MB, and with it its share of a processor: 512, 2048 or 4096. Billed by it while it works."

  validation {
    condition     = contains([512, 2048, 4096], var.instance_memory_mb)
    error_message = "instance_memory_mb must be 512, 2048 or 4096: Flex Consumption has no other sizes."
  }
}

variable "maximum_instances" {
  type        = number
  default     = 40
  nullable    = false
  description = "How far the app scales out: the bound on what a flood of requests can cost in computing."

  validation {
    condition     = var.maximum_instances >= 40 && var.maximum_instances <= 1000 && floor(var.maximum_instances) == var.maximum_instances
    error_message = "maximum_instances must be a whole number from 40 to 1000, as Flex Consumption allows."
  }
}

variable "http_concurrency" {
  type        = number
  default     = 100
  nullable    = false
  description = "Requests an instance serves at once before another is started. Most of a request is waiting for a provider, so it can be high."

  validation {
    condition     = var.http_concurrency >= 1 && var.http_concurrency <= 1000 && floor(var.http_concurrency) == var.http_concurrency
    error_message = "http_concurrency must be a whole number from 1 to 1000."
  }
}

variable "always_ready" {
  type        = map(number)
  default     = {}
  nullable    = false
  description = "Instances kept warm, by group: { http = 1 } spares callers cold starts, { durable = 1 } chains; `blob` and `function:NAME` are the others. Each is paid for around the clock."

  validation {
    condition     = alltrue([for name in keys(var.always_ready) : can(regex("^(http|blob|durable|function:[a-z][a-z0-9_-]*)$", name))])
    error_message = "always_ready: a group is http, blob, durable or function:NAME, in lower case, as Azure returns them."
  }

  validation {
    condition     = alltrue([for count in values(var.always_ready) : try(count >= 1 && floor(count) == count, false)])
    error_message = "always_ready: counts must be whole numbers from 1 on; leave a group out to keep none of it ready."
  }

  validation {
    condition     = length(var.always_ready) == 0 || try(sum(values(var.always_ready)), 0) <= var.maximum_instances
    error_message = "always_ready asks for more instances in all than maximum_instances allows."
  }
}

variable "zone_redundant" {
  type        = bool
  default     = false
  nullable    = false
  description = "Spread the app's instances over zones, in regions that have them. Azure then keeps two instances of each group of functions ready (HTTP, Durable, the timer), and bills them: see the runbook. Take storage_replication = \"ZRS\" with it."

  validation {
    condition     = !var.zone_redundant || contains(["ZRS", "GZRS"], var.storage_replication)
    error_message = "zone_redundant needs storage_replication = \"ZRS\" or \"GZRS\": an app in three zones is not worth more than its storage in one."
  }
}

variable "catalog" {
  type        = string
  default     = null
  description = "The catalog file, relative to the package's root. Null: catalog/models.yaml."
}

variable "allow_anonymous" {
  type        = bool
  default     = false
  nullable    = false
  description = "Serve calls without a key, as key `anonymous`. For a closed network only: whoever reaches the endpoint spends your money."
}

variable "entra" {
  type = object({
    tenant_id     = string
    audience      = string
    project_claim = optional(string)
  })
  default     = null
  description = "Take Entra ID tokens beside keys: the directory, the application id (or its URI) that tokens must be for, and the claim that names the caller's project."

  validation {
    condition     = var.entra == null || can(regex("^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$", var.entra.tenant_id))
    error_message = "entra.tenant_id must be a directory's id (a GUID in lower case): `az account show --query tenantId -o tsv`."
  }

  validation {
    condition     = var.entra == null || try(trimspace(var.entra.audience) != "", false)
    error_message = "entra.audience must be the application id, or its URI, that tokens are for."
  }
}

variable "webhook_hosts" {
  type        = list(string)
  default     = []
  nullable    = false
  description = "Hosts that budget alerts and the ends of background work may be told to, such as hooks.example.com or hooks.example.com:8443. The secret that signs them is made and kept in Key Vault."

  validation {
    condition     = alltrue([for host in var.webhook_hosts : can(regex("^[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?(:[0-9]{1,5})?$", host))])
    error_message = "webhook_hosts are host names, with a port if it is not 443: hooks.example.com, no https:// and no path."
  }
}

variable "webhook_secret" {
  type        = string
  default     = null
  sensitive   = true
  description = "What signs those messages, best given as TF_VAR_webhook_secret. Null: a random one is made. It is written when webhook_secret_version changes."

  validation {
    condition     = var.webhook_secret == null || can(regex("^[!-~]{16,}$", var.webhook_secret))
    error_message = "webhook_secret must have at least 16 printable characters and no spaces; leave it unset to have a random one made."
  }
}

variable "webhook_secret_version" {
  type        = number
  default     = 1
  nullable    = false
  description = "Raise it to replace the secret that signs webhooks."

  validation {
    condition     = var.webhook_secret_version >= 1 && floor(var.webhook_secret_version) == var.webhook_secret_version
    error_message = "webhook_secret_version must be a whole number from 1 on; raise it by one to replace the secret."
  }
}

variable "usage_days" {
  type        = number
  default     = null
  description = "Days for which single requests are kept; what they add up to is kept for good. Null: for good as well."

  validation {
    condition     = var.usage_days == null || try(var.usage_days >= 1 && floor(var.usage_days) == var.usage_days, false)
    error_message = "usage_days must be a whole number from 1 on, or null to keep single requests for good."
  }
}

variable "cors_origins" {
  type        = list(string)
  default     = []
  nullable    = false
  description = "Browser origins that may call, such as https://app.example.com; \"*\" is all."

  validation {
    condition     = alltrue([for origin in var.cors_origins : origin == "*" || can(regex("^https?://[^/*]+$", origin))])
    error_message = "cors_origins are origins such as https://app.example.com (no path, no trailing slash), or *."
  }
}

variable "max_body_bytes" {
  type        = number
  default     = 10485760
  nullable    = false
  description = "Larger request bodies are refused with 413."

  validation {
    condition     = var.max_body_bytes >= 1024 && var.max_body_bytes <= 209715200 && floor(var.max_body_bytes) == var.max_body_bytes
    error_message = "max_body_bytes must be a whole number of bytes from 1024 to 209715200 (200 MB): Azure Functions takes no larger requests."
  }
}

variable "max_file_bytes" {
  type        = number
  default     = 209715200
  nullable    = false
  description = "Larger uploaded files, batches' above all, are refused with 413. They pass through an instance's memory."

  validation {
    condition     = var.max_file_bytes >= 1024 && var.max_file_bytes <= 209715200 && floor(var.max_file_bytes) == var.max_file_bytes
    error_message = "max_file_bytes must be a whole number of bytes from 1024 to 209715200 (200 MB): Azure Functions takes no larger requests."
  }
}

variable "max_in_flight" {
  type        = number
  default     = null
  description = "Requests an instance carries at once; more are refused with 503. Null: 4000."

  validation {
    condition     = var.max_in_flight == null || try(var.max_in_flight >= 1 && floor(var.max_in_flight) == var.max_in_flight, false)
    error_message = "max_in_flight must be a whole number from 1 on, or null for the app's default."
  }
}

variable "app_settings" {
  type        = map(string)
  default     = {}
  nullable    = false
  description = "Further application settings, such as OPENAI_BASE_URL or what a catalog of your own refers to. No secrets: they would stand in the state; keys of providers go to provider_keys."

  validation {
    condition = length(setintersection([for name in keys(var.app_settings) : upper(name)], [
      "ENABLE_ORYX_BUILD",
      "FUNCTIONS_EXTENSION_VERSION",
      "FUNCTIONS_MAX_HTTP_CONCURRENCY",
      "FUNCTIONS_WORKER_DYNAMIC_CONCURRENCY_ENABLED",
      "FUNCTIONS_WORKER_PROCESS_COUNT",
      "FUNCTIONS_WORKER_RUNTIME",
      "FUNCTIONS_WORKER_RUNTIME_VERSION",
      "SCM_DO_BUILD_DURING_DEPLOYMENT",
      "WEBSITE_CONTENTAZUREFILECONNECTIONSTRING",
      "WEBSITE_CONTENTOVERVNET",
      "WEBSITE_CONTENTSHARE",
      "WEBSITE_DNS_SERVER",
      "WEBSITE_MAX_DYNAMIC_APPLICATION_SCALE_OUT",
      "WEBSITE_MOUNT_ENABLED",
      "WEBSITE_NODE_DEFAULT_VERSION",
      "WEBSITE_RUN_FROM_PACKAGE",
      "WEBSITE_SKIP_CONTENTSHARE_VALIDATION",
      "WEBSITE_USE_PLACEHOLDER_DOTNETISOLATED",
      "WEBSITE_VNET_ROUTE_ALL",
    ])) == 0
    error_message = "app_settings has a setting that Flex Consumption refuses or ignores (FUNCTIONS_WORKER_RUNTIME, WEBSITE_RUN_FROM_PACKAGE, …): leave it out; runtime, scale and package are set by variables and by the deployment."
  }

  validation {
    condition     = alltrue([for name in keys(var.app_settings) : can(regex("^[A-Za-z_][A-Za-z0-9_]*$", name)) && !startswith(lower(name), "azurewebjobsstorage")])
    error_message = "app_settings: names have letters, digits and underscores, and AzureWebJobsStorage* is set by Terraform: a connection string there would win over the app's identity."
  }

  validation {
    condition     = alltrue([for value in values(var.app_settings) : value != null])
    error_message = "app_settings has a null: leave the name out instead."
  }
}
