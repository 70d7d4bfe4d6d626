variable "cost_budget_usd" {
  description = "What the resource group may cost in a month, in the currency of the bill (US dollars, mostly), before people are told: at 80 %, at 100 %, and when 100 % is forecast. null for no budget, as in subscriptions that have none (sponsored ones, some partners')."
  type        = number
  default     = 200

  validation {
    condition     = var.cost_budget_usd == null || try(var.cost_budget_usd >= 1, false)
    error_message = "Set cost_budget_usd to 1 or more, or to null for no budget."
  }
}

variable "cost_budget_start_date" {
  description = "First of the month from which on the budget counts, such as 2026-11-01T00:00:00Z; the month of the first apply when null. It can't be changed later but with `terraform apply -replace`."
  type        = string
  default     = null

  validation {
    condition     = var.cost_budget_start_date == null || can(regex("^20[0-9]{2}-(0[1-9]|1[0-2])-01T00:00:00Z$", var.cost_budget_start_date))
    error_message = "Give cost_budget_start_date as the first of a month, such as 2026-11-01T00:00:00Z: Azure takes no other day."
  }
}
