variable "storage_replication" {
  type        = string
  default     = "LRS"
  nullable    = false
  description = "How storage keeps copies: LRS (one data centre), ZRS (three zones), GRS or GZRS (and another region). The tables are the ledger: in production take ZRS, from the first apply on. To change between the two with Z and the two without is more than this line: docs/runbook.md, Storage over zones."

  validation {
    condition     = contains(["LRS", "ZRS", "GRS", "GZRS"], var.storage_replication)
    error_message = "storage_replication must be LRS, ZRS, GRS or GZRS."
  }
}

variable "blob_retention_days" {
  type        = number
  default     = 7
  nullable    = false
  description = "Days for which deleted and overwritten blobs, deployed packages among them, can be brought back."

  validation {
    condition     = var.blob_retention_days >= 1 && var.blob_retention_days <= 365 && floor(var.blob_retention_days) == var.blob_retention_days
    error_message = "blob_retention_days must be a whole number from 1 to 365."
  }
}
