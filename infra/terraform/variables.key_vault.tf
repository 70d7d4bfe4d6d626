variable "key_vault_purge_protection" {
  type        = bool
  default     = false
  nullable    = false
  description = "Let nobody, not even its owner, purge the vault before its soft delete ends. It can't be switched off again, and `terraform destroy` then leaves the deleted vault, and its name, behind for a week."
}

variable "key_vault_readers" {
  type        = set(string)
  default     = null
  description = "Object ids of users, groups and applications that may read the administrator's key. Null: whoever runs `terraform apply`; set it if several identities do, or each would take the role from the other."

  validation {
    condition     = var.key_vault_readers == null || alltrue([for id in coalesce(var.key_vault_readers, []) : can(regex("^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$", id))])
    error_message = "key_vault_readers must be object ids (GUIDs), such as `az ad signed-in-user show --query id -o tsv` prints, not names or addresses."
  }
}

variable "admin_key" {
  type        = string
  default     = null
  sensitive   = true
  description = "The administrator's key, best given as TF_VAR_admin_key. Null: a random one is made. It is written when admin_key_version changes."

  validation {
    condition     = var.admin_key == null || can(regex("^[!-~]{16,}$", var.admin_key))
    error_message = "admin_key must have at least 16 printable characters and no spaces; leave it unset to have a random one made."
  }
}

variable "admin_key_version" {
  type        = number
  default     = 1
  nullable    = false
  description = "Raise it to replace the administrator's key."

  validation {
    condition     = var.admin_key_version >= 1 && floor(var.admin_key_version) == var.admin_key_version
    error_message = "admin_key_version must be a whole number from 1 on; raise it by one to replace the key."
  }
}

variable "provider_key_versions" {
  type        = map(number)
  default     = {}
  nullable    = false
  description = "Keys of outside providers: the name the catalog refers to => a version, such as { OPENAI_API_KEY = 1 }. The values come from provider_keys; raise the version to write a new one."

  validation {
    condition     = alltrue([for name in keys(var.provider_key_versions) : can(regex("^[A-Z][A-Z0-9_]*_(API_KEY|KEY|TOKEN|SECRET)$", name)) && !startswith(name, "SWITCHYARD_")])
    error_message = "provider_key_versions: names are those of the catalog's $${…}, such as OPENAI_API_KEY, ANTHROPIC_API_KEY, HF_TOKEN or COHERE_API_KEY: capitals, ending in _KEY, _TOKEN or _SECRET. SWITCHYARD_* have variables of their own."
  }

  validation {
    condition     = alltrue([for version in values(var.provider_key_versions) : try(version >= 1 && floor(version) == version, false)])
    error_message = "provider_key_versions: versions must be whole numbers from 1 on."
  }
}

variable "provider_keys" {
  type        = map(string)
  default     = {}
  nullable    = false
  sensitive   = true
  description = "Values of the keys in provider_key_versions, best given as TF_VAR_provider_keys='{\"OPENAI_API_KEY\":\"…\"}'. Needed only when a version is new: they are kept in Key Vault and nowhere else."

  validation {
    condition     = length(setsubtract(keys(var.provider_keys), keys(var.provider_key_versions))) == 0
    error_message = "provider_keys has a name that provider_key_versions has not: add it there with version 1, and raise that to replace the key later."
  }

  validation {
    condition     = alltrue([for value in values(var.provider_keys) : try(trimspace(value) != "", false)])
    error_message = "provider_keys has an empty value: leave the name out instead, what Key Vault holds is kept."
  }
}
