# What the optional parts hand to the core: each part that is off adds nothing, so the core merges these without asking.

locals {
  # "Enabled" or "Disabled", for resources that spell it so.
  public_access = var.private_networking ? "Disabled" : "Enabled"

  # Application settings.
  settings_optional = local.settings_redis

  # Roles of the app's identity, key => { scope, role }. None: Redis has users of its own.
  roles_optional = {}

  # Secrets for Key Vault, name => value. None: every optional part is reached with the app's identity.
  secrets_optional = {}

  # Browser origins that may call, beside the operator's own.
  web_origin            = var.web_enabled ? "https://${azurerm_static_web_app.main[0].default_host_name}" : null
  cors_origins_optional = compact([local.web_origin])

  # The function app's siteConfig.ipSecurityRestrictions; empty means that everybody may call.
  ip_restrictions_optional = local.ip_restrictions_front_door

  # Requirement files the deployed package needs beside requirements.txt.
  extra_requirements = var.redis_enabled ? ["requirements-redis.txt"] : []

  # Resource providers that an empty subscription must register for what is on.
  resource_providers_optional = compact([
    var.private_networking ? "Microsoft.Network" : "",
    var.front_door_enabled ? "Microsoft.Cdn" : "",
    var.front_door_enabled && !var.private_networking ? "Microsoft.Network" : "", # Firewall policies are of that provider.
    var.redis_enabled ? "Microsoft.Cache" : "",
    var.grafana_enabled ? "Microsoft.Dashboard" : "",
    var.api_management_enabled ? "Microsoft.ApiManagement" : "",
  ])

  # Where callers find the gateway: the part in front of the function app, where there is one.
  front_door_endpoint     = var.front_door_enabled ? "https://${azurerm_cdn_frontdoor_endpoint.main[0].host_name}" : null
  api_management_endpoint = one(azurerm_api_management.main[*].gateway_url)
  public_endpoint         = try(coalesce(local.front_door_endpoint, local.api_management_endpoint), local.endpoint)
}
