# A platform for a team or a company: warm, over zones, in two regions, watched.
#
#     terraform apply -var-file=examples/standard.tfvars -var subscription_id=$(az account show --query id -o tsv)

environment = "prod"
location    = "swedencentral"

tags = {
  cost-center = "platform"
  owner       = "platform-team"
}

# Two instances are always there: no caller waits for a cold start, and one may fail.
instance_memory_mb = 2048
http_concurrency   = 100
maximum_instances  = 100
always_ready       = { http = 2 }

# The tables are the ledger: three copies in three zones, and the app over the same zones. For that Azure keeps two instances ready for
# HTTP, for Durable and for the timer each, six in all: without zone_redundant they are the two above.
storage_replication = "ZRS"
zone_redundant      = true
blob_retention_days = 30

# The first region is asked first; when it throttles or fails, the next one answers.
openai_regions = {
  swedencentral = {}
  eastus2       = {}
}

# Keys of outside providers: what the catalog calls them, and a version to raise when a key is replaced. The values come from
# TF_VAR_provider_keys='{"OPENAI_API_KEY": "…", "ANTHROPIC_API_KEY": "…"}' and are kept in Key Vault only.
# provider_key_versions = { OPENAI_API_KEY = 1, ANTHROPIC_API_KEY = 1 }

# Who may read the administrator's key; without it, whoever applies, so name the group if a workflow applies too.
# key_vault_readers = ["00000000-0000-0000-0000-000000000000"]

# Sign-in with Entra ID beside keys.
# entra = { tenant_id = "…", audience = "api://switchyard", project_claim = "project" }

# ---- monitoring ----

log_retention_days = 180
log_daily_quota_gb = 20
# Half of the requests' spans; metrics, and so all money, are always whole.
trace_sampling_ratio = 0.5
alert_thresholds     = { error_percent = 2, p95_seconds = 20 }
availability_test    = { every_seconds = 300 }
cost_budget_usd      = 5000

# Who is told. Webhooks may hold tokens: TF_VAR_alert_webhooks='{"chat": "https://…"}'
# alert_emails = { oncall = "oncall@example.com" }
