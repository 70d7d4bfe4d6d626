# Close to nothing at idle: what is paid for is calls, tokens and what is stored.
#
#     terraform apply -var-file=examples/smallest.tfvars -var subscription_id=$(az account show --query id -o tsv)

environment = "dev"
location    = "swedencentral"

# A quarter of a processor; the gateway mostly waits. Uploads pass through an instance's memory, so they are kept small.
instance_memory_mb = 512
http_concurrency   = 50
max_file_bytes     = 20971520

# The scheduler is paid for by the action; a store of one's own would be asked for work around the clock.
durable_backend = "DurableTaskScheduler"
durable_sku     = "Consumption"

storage_replication = "LRS"

# Cheap models by the token: one for chat, one that takes the temperature which the newest refuse, one for embeddings.
openai_deployments = [
  { model = "gpt-6-luna", version = "2026-09-22", capacity = 50 },
  { model = "gpt-5.4-nano", version = "2026-03-17", capacity = 50 },
  { model = "text-embedding-3-small", version = "1", capacity = 50 },
]

# ---- monitoring: the workbook is free, what is kept and what watches is not ----

log_retention_days = 30
log_daily_quota_gb = 0.5
# Host logs are in Application Insights already; who read a secret stays told.
diagnostic_logs = { function_app = [], storage = [], openai = [] }
# Rules and web tests are paid for even when nobody calls.
alerts_enabled    = false
availability_test = { enabled = false }
cost_budget_usd   = 20
