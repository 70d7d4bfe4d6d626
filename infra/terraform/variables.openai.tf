variable "openai_deployments" {
  type = list(object({
    model               = string
    version             = string
    sku                 = optional(string, "GlobalStandard")
    capacity            = number
    name                = optional(string)
    format              = optional(string)
    version_upgrade     = optional(string, "OnceCurrentVersionExpired")
    content_filter      = optional(string)
    tokens_per_minute   = optional(number)
    requests_per_minute = optional(number)
  }))
  nullable    = false
  description = <<-EOT
    Models deployed in every region of `openai_regions` that lists none of its own; one block is one deployment.

    - `model`, `version`: as `az cognitiveservices model list --location REGION` prints them. The catalog must know the model.
    - `sku`: where prompts are processed and how it is paid: GlobalStandard, DataZoneStandard, Standard (by the token), or
      GlobalProvisionedManaged, DataZoneProvisionedManaged, ProvisionedManaged (by the hour, used or not).
    - `capacity`: thousands of tokens a minute; provisioned throughput units for the provisioned ones.
    - `name`: needed only where one region has the same model twice in the same way; else the model's, and the model's with
      `-provisioned`. The same model provisioned and by the token is one model to callers: reserved capacity first, then the rest.
    - `format`: the model's publisher; told by the model's name where it isn't given.
    - `version_upgrade`: OnceCurrentVersionExpired keeps the version until Azure retires it, and then the newer one serves.
    - `content_filter`: the name of a content filter (RAI policy) of the account; Azure's default where it isn't given.
    - `tokens_per_minute`, `requests_per_minute`: what the gateway itself sends at most, where the capacity doesn't say it.
  EOT

  # What a subscription made today may deploy: sold by Microsoft, generally available. The dearest is for code and reasoning; the
  # mini models take what the newest refuse (a temperature), so that no request is left without a model.
  default = [
    { model = "gpt-6-luna", version = "2026-09-22", capacity = 100 },
    { model = "gpt-6-sol", version = "2026-09-22", capacity = 50 },
    { model = "gpt-5.4-mini", version = "2026-03-17", capacity = 100 },
    { model = "gpt-5-mini", version = "2025-08-07", capacity = 100 },
    { model = "text-embedding-3-small", version = "1", capacity = 100 },
  ]

  validation {
    condition     = length(var.openai_deployments) > 0
    error_message = "openai_deployments must have at least one deployment; for no Azure models at all set openai_regions = {}."
  }
}

variable "openai_regions" {
  type = map(object({
    priority = optional(number)
    deployments = optional(list(object({
      model               = string
      version             = string
      sku                 = optional(string, "GlobalStandard")
      capacity            = number
      name                = optional(string)
      format              = optional(string)
      version_upgrade     = optional(string, "OnceCurrentVersionExpired")
      content_filter      = optional(string)
      tokens_per_minute   = optional(number)
      requests_per_minute = optional(number)
    })))
  }))
  default     = null
  description = <<-EOT
    Regions with models, by short name; the default is `location` alone. A further region is one line, `eastus2 = {}`: it gets the
    models of `openai_deployments`, or those listed in `deployments`. Lower `priority` is asked first, equals share the traffic;
    the default is 1 for `location` and 2 for the others. An empty map deploys no models: the gateway then has outside providers only.
  EOT

  validation {
    condition     = alltrue([for region in keys(coalesce(var.openai_regions, {})) : can(regex("^[a-z][a-z0-9]{2,23}$", region))])
    error_message = "openai_regions: a key must be a region's short name, such as swedencentral or eastus2: lower case, no spaces."
  }

  validation {
    condition     = alltrue([for region in values(coalesce(var.openai_regions, {})) : try(region.priority >= 1 && floor(region.priority) == region.priority, region.priority == null)])
    error_message = "openai_regions: priority must be a whole number of at least 1; 1 is asked first."
  }

  validation {
    condition     = alltrue([for region in values(coalesce(var.openai_regions, {})) : region.deployments == null || try(length(region.deployments) > 0, false)])
    error_message = "openai_regions: a region's deployments must have at least one; leave them out for those of openai_deployments, or remove the region."
  }

  # What both variables list.

  validation {
    condition = alltrue([
      for one in concat(var.openai_deployments, flatten([for region in values(coalesce(var.openai_regions, {})) : coalesce(region.deployments, [])])) :
      contains(["GlobalStandard", "DataZoneStandard", "Standard", "GlobalProvisionedManaged", "DataZoneProvisionedManaged", "ProvisionedManaged"], one.sku)
    ])
    error_message = "A deployment's sku must be GlobalStandard, DataZoneStandard, Standard, GlobalProvisionedManaged, DataZoneProvisionedManaged or ProvisionedManaged: batch and developer types answer no calls of a gateway."
  }

  validation {
    condition     = alltrue([for one in concat(var.openai_deployments, flatten([for region in values(coalesce(var.openai_regions, {})) : coalesce(region.deployments, [])])) : one.capacity >= 1 && floor(one.capacity) == one.capacity])
    error_message = "A deployment's capacity must be a whole number of at least 1: thousands of tokens a minute, or provisioned throughput units."
  }

  validation {
    condition     = alltrue([for one in concat(var.openai_deployments, flatten([for region in values(coalesce(var.openai_regions, {})) : coalesce(region.deployments, [])])) : trimspace(one.model) != "" && trimspace(one.version) != ""])
    error_message = "A deployment needs a model and its version, as `az cognitiveservices model list --location REGION` prints them."
  }

  validation {
    condition     = alltrue([for one in concat(var.openai_deployments, flatten([for region in values(coalesce(var.openai_regions, {})) : coalesce(region.deployments, [])])) : can(regex("^[A-Za-z0-9][A-Za-z0-9._-]{1,63}$", one.name == null ? "${one.model}-provisioned" : one.name))])
    error_message = "A deployment's name must have 2 to 64 letters, digits, dots, dashes and underscores, and begin with a letter or digit."
  }

  validation {
    condition     = alltrue([for one in concat(var.openai_deployments, flatten([for region in values(coalesce(var.openai_regions, {})) : coalesce(region.deployments, [])])) : one.format != "Anthropic" && !startswith(lower(one.model), "claude")])
    error_message = "Claude can't be deployed here: somebody must accept the Marketplace's terms. Deploy it in the portal, in the account of the first region, and set foundry_claude = true."
  }

  validation {
    condition     = alltrue([for one in concat(var.openai_deployments, flatten([for region in values(coalesce(var.openai_regions, {})) : coalesce(region.deployments, [])])) : contains(["OnceCurrentVersionExpired", "OnceNewDefaultVersionAvailable", "NoAutoUpgrade"], one.version_upgrade)])
    error_message = "A deployment's version_upgrade must be OnceCurrentVersionExpired, OnceNewDefaultVersionAvailable or NoAutoUpgrade."
  }

  validation {
    condition = alltrue([
      for one in concat(var.openai_deployments, flatten([for region in values(coalesce(var.openai_regions, {})) : coalesce(region.deployments, [])])) :
      alltrue([for limit in [one.tokens_per_minute, one.requests_per_minute] : limit == null || try(limit >= 1 && floor(limit) == limit, false)])
    ])
    error_message = "A deployment's tokens_per_minute and requests_per_minute must be whole numbers of at least 1, or left out."
  }

  validation {
    condition = alltrue([
      for list in concat([var.openai_deployments], [for region in values(coalesce(var.openai_regions, {})) : coalesce(region.deployments, [])]) :
      length(list) == length(distinct([for one in list : lower(one.name == null ? "${one.model}${endswith(one.sku, "ProvisionedManaged") ? "-provisioned" : ""}" : one.name)]))
    ])
    error_message = "Two deployments of one region have the same name: the same model twice in the same way needs a `name` of its own, such as gpt-5-mini-zone."
  }
}

variable "foundry_claude" {
  type        = bool
  default     = false
  nullable    = false
  description = "Claude models were deployed by hand in the account of the first region: the app may call them there. Terraform deploys none: Azure wants somebody to accept the Marketplace's terms and the organization's name, industry and country, which azurerm can't send."
}
