# Nothing of storage, secrets or models on the internet: a virtual network, private endpoints, public access off.
#
#     terraform apply -var-file=examples/private.tfvars -var subscription_id=$(az account show --query id -o tsv)
#
# The gateway's own address stays public; `private_inbound = true` closes that too, for callers inside the network or peered to it.

environment = "private"
location    = "swedencentral"

private_networking    = true
network_address_space = "10.64.0.0/24"

instance_memory_mb = 2048
http_concurrency   = 100
always_ready       = { http = 1 }

# Over zones Azure keeps two instances ready for HTTP, for Durable and for the timer each, six in all.
storage_replication = "ZRS"
zone_redundant      = true

# With this nobody can empty the vault for good, not even with a stolen sign-in; `terraform destroy` then leaves the deleted vault
# behind for a week.
# key_vault_purge_protection = true

# The administrator's key can be read from inside the network only. Give one of your own and you know it already:
# TF_VAR_admin_key=$(openssl rand -hex 32)

# ---- monitoring: telemetry too leaves by a private way, and every access to stored rows is told ----

private_monitoring = true
diagnostic_logs    = { storage = ["StorageRead", "StorageWrite", "StorageDelete"] }
log_daily_quota_gb = 20
