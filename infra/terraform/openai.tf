# Azure's models: one Foundry account per region, its deployments, and what the app is told about them.

locals {
  openai_regions = {
    for region, given in var.openai_regions == null ? { (var.location) = { priority = null, deployments = null } } : var.openai_regions :
    region => {
      priority = given.priority != null ? given.priority : region == var.location ? 1 : 2
      deployments = [
        for deployment in given.deployments != null ? given.deployments : var.openai_deployments : merge(deployment, {
          # Reserved capacity beside the same model by the token needs a name of its own.
          name   = deployment.name != null ? deployment.name : "${deployment.model}${endswith(deployment.sku, "ProvisionedManaged") ? "-provisioned" : ""}"
          format = deployment.format != null ? deployment.format : try([for prefix, format in local.openai_formats : format if startswith(deployment.model, prefix)][0], "OpenAI")
        })
      ]
    }
  }

  # Publishers of the catalog's other models, by how their names begin; OpenAI's are the rest.
  openai_formats = {
    "Cohere-"  = "Cohere"
    "DeepSeek" = "DeepSeek"
    "Kimi-"    = "MoonshotAI"
    "Llama-"   = "Meta"
    "Phi-"     = "Microsoft"
    "cohere-"  = "Cohere"
    "embed-v"  = "Cohere"
    "gpt-oss"  = "OpenAI-OSS"
    "grok-"    = "xAI"
    "mistral-" = "Mistral AI"
  }

  # The first region first.
  openai_order = [for key in sort([for region, one in local.openai_regions : format("%06d/%s", one.priority, region)]) : split("/", key)[1]]
  openai_home  = try(local.openai_order[0], "")

  openai_deployments = merge([
    for region, one in local.openai_regions : {
      for deployment in one.deployments : "${region}/${deployment.name}" => merge(deployment, { region = region })
    }
  ]...)

  # The subdomain is the account's name: known before there is an account, so the app's settings don't wait for it.
  openai_names     = { for region in keys(local.openai_regions) : region => "aif-${local.name}-${region}-${local.suffix}" }
  openai_endpoints = { for region, name in local.openai_names : region => "https://${name}.openai.azure.com" }

  settings_openai = length(local.openai_order) == 0 ? {} : merge(
    {
      # shared/catalog/infrastructure.py: each deployment here becomes one of the catalog's model of that name.
      SWITCHYARD_DEPLOYMENTS = jsonencode([
        for region in local.openai_order : {
          provider = "azure_openai"
          region   = region
          endpoint = local.openai_endpoints[region]
          priority = local.openai_regions[region].priority
          deployments = [
            for deployment in local.openai_regions[region].deployments : {
              for name, value in deployment : name => value
              if value != null && contains(["name", "model", "sku", "capacity", "tokens_per_minute", "requests_per_minute"], name)
            }
          ]
        }
      ])

      # For catalogs that name one endpoint; every deployment above has its own.
      AZURE_OPENAI_ENDPOINT = local.openai_endpoints[local.openai_home]
    },
    var.foundry_claude ? {
      AZURE_FOUNDRY_ENDPOINT = "https://${local.openai_names[local.openai_home]}.services.ai.azure.com"
    } : {},
  )

  roles_openai = merge(
    {
      # shared/adapters/providers/azure_openai.py: inference, and nothing else.
      for region in keys(local.openai_regions) : "openai_${region}" => {
        scope = azurerm_cognitive_account.openai[region].id
        role  = "Cognitive Services OpenAI User"
      }
    },
    {
      # The same for models that are not OpenAI's, which the role above doesn't cover.
      for region, one in local.openai_regions : "foundry_${region}" => {
        scope = azurerm_cognitive_account.openai[region].id
        role  = "Cognitive Services User"
      }
      if anytrue([for deployment in one.deployments : deployment.format != "OpenAI"]) || (var.foundry_claude && region == local.openai_home)
    },
  )
}

# Kind AIServices, not OpenAI: one account then serves OpenAI's models, the others that Microsoft sells (Llama, DeepSeek, Grok) and
# Claude, under the same v1 paths; kind OpenAI has the first only, and changing the kind later replaces the account.
# No identity: the account calls nobody.
resource "azurerm_cognitive_account" "openai" {
  for_each = local.openai_regions

  name                = local.openai_names[each.key]
  resource_group_name = azurerm_resource_group.main.name
  location            = each.key
  tags                = local.tags

  kind     = "AIServices"
  sku_name = "S0"

  # Entra ID wants a subdomain of its own; so do private endpoints.
  custom_subdomain_name         = local.openai_names[each.key]
  local_auth_enabled            = false
  public_network_access_enabled = !var.private_networking
}

# The provider makes an account's deployments one after the other: Azure refuses two changes of one account at a time.
resource "azurerm_cognitive_deployment" "model" {
  for_each = local.openai_deployments

  name                 = each.value.name
  cognitive_account_id = azurerm_cognitive_account.openai[each.value.region].id

  # The version is always told: what Azure would choose is another one some day, and then differs from what is written here.
  model {
    format  = each.value.format
    name    = each.value.model
    version = each.value.version
  }

  sku {
    name     = each.value.sku
    capacity = each.value.capacity
  }

  version_upgrade_option = each.value.version_upgrade
  rai_policy_name        = each.value.content_filter
}
