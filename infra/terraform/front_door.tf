# Front Door and its firewall in front of the function app, off unless var.front_door_enabled.

locals {
  front_door_sku = "${var.front_door_sku}_AzureFrontDoor"

  # What the gateway serves. What else the function host answers under (/admin, /runtime) stays out of reach from here.
  front_door_paths = ["/v1/*", "/openai/*", "/openapi.json", "/docs", "/metrics"]

  # In the form of OpenAI's errors, so that clients show it as such.
  firewall_refusal = jsonencode({
    error = {
      message = "Refused by the firewall in front of the gateway: too many requests from this address, or a request that looks like an attack. Wait a minute, then try again."
      type    = "rate_limit_error"
      param   = null
      code    = "firewall"
    }
  })

  # Anybody's Front Door comes from the same addresses; the header says that it is ours.
  ip_restrictions_front_door = !var.front_door_enabled ? [] : [
    {
      name        = "front-door"
      description = "Our Front Door, and nobody else's"
      priority    = 100
      action      = "Allow"
      tag         = "ServiceTag"
      ipAddress   = "AzureFrontDoor.Backend"
      headers     = { "x-azure-fdid" = [azurerm_cdn_frontdoor_profile.main[0].resource_guid] }
    },
  ]
}

resource "azurerm_cdn_frontdoor_profile" "main" {
  count = var.front_door_enabled ? 1 : 0

  name                = "afd-${local.name}"
  resource_group_name = azurerm_resource_group.main.name
  sku_name            = local.front_door_sku
  # The longest there is. A stream's first byte comes within 15 s (a comment); a whole answer may take the 230 s Azure gives it.
  response_timeout_seconds = 240
  tags                     = local.tags

  # Callers' addresses are personal data, and what somebody puts into a query string may be a key.
  log_scrubbing_rule {
    match_variable = "QueryStringArgNames"
  }
  log_scrubbing_rule {
    match_variable = "RequestIPAddress"
  }
}

resource "azurerm_cdn_frontdoor_endpoint" "main" {
  count = var.front_door_enabled ? 1 : 0

  name                     = "${local.name}-${local.suffix}"
  cdn_frontdoor_profile_id = azurerm_cdn_frontdoor_profile.main[0].id
  tags                     = local.tags
}

resource "azurerm_cdn_frontdoor_origin_group" "main" {
  count = var.front_door_enabled ? 1 : 0

  name                     = "gateway"
  cdn_frontdoor_profile_id = azurerm_cdn_frontdoor_profile.main[0].id
  session_affinity_enabled = false

  load_balancing {}

  dynamic "health_probe" {
    for_each = var.front_door_health_probe_seconds == null ? [] : [var.front_door_health_probe_seconds]
    content {
      interval_in_seconds = health_probe.value
      path                = "/v1/health/live"
      protocol            = "Https"
      request_type        = "GET"
    }
  }
}

resource "azurerm_cdn_frontdoor_origin" "main" {
  count = var.front_door_enabled ? 1 : 0

  name                           = "function-app"
  cdn_frontdoor_origin_group_id  = azurerm_cdn_frontdoor_origin_group.main[0].id
  host_name                      = trimprefix(local.endpoint, "https://")
  origin_host_header             = trimprefix(local.endpoint, "https://")
  certificate_name_check_enabled = true

  dynamic "private_link" {
    for_each = var.front_door_private_link ? [1] : []
    content {
      location               = coalesce(var.front_door_private_link_location, var.location)
      private_link_target_id = azapi_resource.function_app.id
      target_type            = "sites"
      request_message        = "Front Door of ${local.name}"
    }
  }
}

# No cache block: answers are nobody else's, and a cache would hold streams back.
resource "azurerm_cdn_frontdoor_route" "main" {
  count = var.front_door_enabled ? 1 : 0

  name                          = "gateway"
  cdn_frontdoor_endpoint_id     = azurerm_cdn_frontdoor_endpoint.main[0].id
  cdn_frontdoor_origin_group_id = azurerm_cdn_frontdoor_origin_group.main[0].id
  cdn_frontdoor_origin_ids      = [azurerm_cdn_frontdoor_origin.main[0].id]
  patterns_to_match             = local.front_door_paths
  supported_protocols           = ["Http", "Https"] # Http only to be told to come back with TLS.
  https_redirect_enabled        = true
  forwarding_protocol           = "HttpsOnly"
  link_to_default_domain        = true
}

resource "azurerm_cdn_frontdoor_firewall_policy" "main" {
  count = var.front_door_enabled ? 1 : 0

  name                = "waf${local.compact}" # Letters and digits only.
  resource_group_name = azurerm_resource_group.main.name
  sku_name            = local.front_door_sku
  mode                = var.front_door_firewall_mode
  # Prompts are SQL, HTML, shell commands and other people's exploits, in JSON and in uploaded files: rules that read bodies refuse
  # honest work, and an exclusion for each field would have to follow OpenAI's API for ever. The gateway parses bodies strictly and
  # never runs them. Rules still see path, query and headers.
  request_body_check_enabled = false
  custom_block_response_body = base64encode(local.firewall_refusal)
  # Azure's default, said because azurerm would take an answer that holds it for a change.
  custom_block_response_status_code = 403
  tags                              = local.tags

  custom_rule {
    name                           = "RequestsOfOneClient"
    type                           = "RateLimitRule"
    action                         = "Block"
    priority                       = 100
    rate_limit_duration_in_minutes = 1
    rate_limit_threshold           = var.front_door_requests_per_minute

    # Everybody: the rule counts by client address.
    match_condition {
      match_variable = "SocketAddr"
      operator       = "IPMatch"
      match_values   = ["0.0.0.0/0", "::/0"]
    }
  }

  # The bot rule set is left out: callers of an API are programs.
  dynamic "managed_rule" {
    for_each = var.front_door_sku == "Premium" ? [1] : []
    content {
      type    = "Microsoft_DefaultRuleSet"
      version = "2.1"
      action  = "Block"
    }
  }
}

resource "azurerm_cdn_frontdoor_security_policy" "main" {
  count = var.front_door_enabled ? 1 : 0

  name                     = "firewall"
  cdn_frontdoor_profile_id = azurerm_cdn_frontdoor_profile.main[0].id

  security_policies {
    firewall {
      cdn_frontdoor_firewall_policy_id = azurerm_cdn_frontdoor_firewall_policy.main[0].id

      association {
        patterns_to_match = ["/*"]

        domain {
          cdn_frontdoor_domain_id = azurerm_cdn_frontdoor_endpoint.main[0].id
        }
      }
    }
  }
}
