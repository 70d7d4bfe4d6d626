variable "diagnostic_logs" {
  description = "Log categories each service sends to the workspace; an empty list sends none. Reads and writes of storage and every model call are told as well, if you name them, at about a kilobyte each."
  type = object({
    # What the host says: the only trace of an app that dies before its telemetry starts.
    function_app = optional(set(string), ["FunctionAppLogs"])
    key_vault    = optional(set(string), ["AuditEvent"])
    # Each request writes several rows: StorageRead and StorageWrite cost more than the requests.
    storage    = optional(set(string), ["StorageDelete"])
    openai     = optional(set(string), ["Audit"])
    front_door = optional(set(string), ["FrontDoorWebApplicationFirewallLog"])
  })
  default  = {}
  nullable = false

  validation {
    condition = alltrue([
      length(setsubtract(var.diagnostic_logs.function_app, ["FunctionAppLogs", "AppServiceAuthenticationLogs"])) == 0,
      length(setsubtract(var.diagnostic_logs.key_vault, ["AuditEvent", "AzurePolicyEvaluationDetails"])) == 0,
      length(setsubtract(var.diagnostic_logs.storage, ["StorageRead", "StorageWrite", "StorageDelete"])) == 0,
      length(setsubtract(var.diagnostic_logs.openai, ["Audit", "RequestResponse", "Trace", "AzureOpenAIRequestUsage"])) == 0,
      length(setsubtract(var.diagnostic_logs.front_door, ["FrontDoorAccessLog", "FrontDoorHealthProbeLog", "FrontDoorWebApplicationFirewallLog"])) == 0,
    ])
    error_message = "Name categories the service has: function_app FunctionAppLogs, AppServiceAuthenticationLogs; key_vault AuditEvent, AzurePolicyEvaluationDetails; storage StorageRead, StorageWrite, StorageDelete; openai Audit, RequestResponse, Trace, AzureOpenAIRequestUsage; front_door FrontDoorAccessLog, FrontDoorHealthProbeLog, FrontDoorWebApplicationFirewallLog."
  }
}

variable "diagnostic_metrics_enabled" {
  description = "Whether platform metrics are copied into the workspace. Azure keeps them for 93 days anyway, at no cost; copied, they can be joined with logs, and cost ingestion even when idle."
  type        = bool
  default     = false
  nullable    = false
}
