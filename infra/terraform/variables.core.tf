variable "subscription_id" {
  type        = string
  nullable    = false
  description = "The subscription everything is made in: `az account show --query id -o tsv`."

  validation {
    condition     = can(regex("^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$", var.subscription_id))
    error_message = "subscription_id must be a GUID in lower case, as `az account show --query id -o tsv` prints it."
  }
}

variable "register_resource_providers" {
  type        = bool
  default     = true
  nullable    = false
  description = "Register the resource providers that are used with the subscription. false where that is not yours to do, or the identity may only read, as when a pull request is planned: register them beforehand, `az provider register --namespace Microsoft.…`; providers.tf lists them."
}

variable "prefix" {
  type        = string
  default     = "switchyard"
  nullable    = false
  description = "Every resource's name begins with its kind and this."

  validation {
    condition     = can(regex("^[a-z][a-z0-9]{2,11}$", var.prefix))
    error_message = "prefix must have 3 to 12 lower-case letters and digits and begin with a letter: storage accounts allow nothing else."
  }

  validation {
    condition     = !can(regex("microsoft|windows|^login|^xbox", var.prefix))
    error_message = "prefix must not hold microsoft or windows, nor begin with login or xbox: Azure keeps these names for itself."
  }
}

variable "environment" {
  type        = string
  default     = "dev"
  nullable    = false
  description = "Follows the prefix in every name, so that several installations fit into one subscription: dev, test, prod."

  validation {
    condition     = can(regex("^[a-z0-9]{1,8}$", var.environment))
    error_message = "environment must have 1 to 8 lower-case letters and digits, such as dev, test or prod."
  }
}

variable "location" {
  type        = string
  default     = "swedencentral"
  nullable    = false
  description = "Azure region of everything but the further model regions. It must have Flex Consumption: `az functionapp list-flexconsumption-locations`."

  validation {
    condition     = can(regex("^[a-z0-9]+$", var.location))
    error_message = "location must be a region's short name, such as swedencentral or eastus2: no spaces, lower case."
  }
}

variable "tags" {
  type        = map(string)
  default     = {}
  nullable    = false
  description = "Further tags for every resource, such as cost-center or owner; they win over application, environment and managed-by."

  validation {
    condition     = length(distinct([for key in keys(var.tags) : lower(key)])) == length(var.tags) && alltrue([for key in keys(var.tags) : can(regex("^[^<>%&\\\\?/#:]+$", key)) && !can(regex("^(?i:azure|microsoft|windows)", key))])
    error_message = "tags: no two keys may differ by case only, hold any of < > % & \\ ? / # :, or begin with azure, microsoft or windows."
  }

  validation {
    condition     = length(var.tags) <= 12 && alltrue([for key, value in var.tags : length(key) <= 128 && try(length(value) <= 256, false)])
    error_message = "tags: at most 12, each with a key of up to 128 and a value of up to 256 characters; some of the resources allow no more than 15 tags."
  }
}
