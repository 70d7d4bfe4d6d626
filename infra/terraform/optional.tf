# What the optional parts hand to the core: each part that is off adds nothing, so the core merges these without asking.

locals {
  # Application settings.
  settings_optional = {}

  # Roles of the app's identity: key => { scope, role }.
  roles_optional = {}

  # Secrets for Key Vault: name => value. Empty on purpose: every optional part is reached with the app's identity.
  secrets_optional = {}

  # Browser origins that may call, beside the operator's own.
  cors_origins_optional = []

  # The function app's siteConfig.ipSecurityRestrictions, as Resource Manager returns them; empty means everybody may call.
  ip_restrictions_optional = []

  # Packages the deployed code needs beside requirements.txt, by file name.
  extra_requirements = []

  # Where callers find the gateway: the part in front of the function app, where there is one.
  public_endpoint = local.endpoint
}
