output "extra_requirements" {
  description = "Requirement files the package needs beside requirements.txt; `make deploy` reads this."
  value       = local.extra_requirements
}

output "redis_host" {
  description = "The host name of Redis; null without it."
  value       = one(azurerm_managed_redis.main[*].hostname)
}
