variable "grafana_enabled" {
  type        = bool
  default     = false
  nullable    = false
  description = "Make an Azure Managed Grafana that may read this resource group's metrics and logs."
}

variable "grafana_admins" {
  type        = set(string)
  default     = []
  nullable    = false
  description = "Object ids of the users or groups that administer Grafana and import the dashboards. Without one nobody can sign in."

  validation {
    condition     = alltrue([for id in var.grafana_admins : can(regex("^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$", id))])
    error_message = "grafana_admins must hold object ids (GUIDs), not names: `az ad user show --id NAME --query id`."
  }
  validation {
    condition     = !var.grafana_enabled || length(var.grafana_admins) > 0
    error_message = "grafana_enabled needs somebody in grafana_admins: nobody could sign in."
  }
}

variable "grafana_major_version" {
  type        = string
  default     = "12"
  nullable    = false
  description = "Grafana's major version, 12 or 13."

  validation {
    condition     = contains(["12", "13"], var.grafana_major_version)
    error_message = "grafana_major_version must be 12 or 13: Azure offers no other."
  }
}
