#!/usr/bin/env bash
# Connects Terraform to the state of one environment, kept in a container of Azure Storage, and to its variables.
# TFSTATE_RESOURCE_GROUP, TFSTATE_STORAGE_ACCOUNT and TFSTATE_CONTAINER say where the state is, TFSTATE_KEY what it is called
# (default switchyard.tfstate); TFVARS is the text of a .tfvars file. Entra ID opens it: there is no key. What it is called with goes
# to `terraform init`: -force-copy moves the state that is on this machine there, -reconfigure goes to another one without it.
set -euo pipefail
cd "$(dirname "$0")/../infra/terraform"
: "${TFSTATE_RESOURCE_GROUP:?set this variable to the resource group of the state: docs/runbook.md}"
: "${TFSTATE_STORAGE_ACCOUNT:?set this variable to the storage account of the state: docs/runbook.md}"
: "${TFSTATE_CONTAINER:?set this variable to the container of the state: docs/runbook.md}"

# An override, so that a clone without it keeps its state on its own machine.
printf 'terraform {\n  backend "azurerm" {}\n}\n' > backend_override.tf
if [ -n "${TFVARS+given}" ]; then printf '%s\n' "$TFVARS" > environment.auto.tfvars; fi
terraform init -input=false -no-color \
  -backend-config="resource_group_name=$TFSTATE_RESOURCE_GROUP" \
  -backend-config="storage_account_name=$TFSTATE_STORAGE_ACCOUNT" \
  -backend-config="container_name=$TFSTATE_CONTAINER" \
  -backend-config="key=${TFSTATE_KEY:-switchyard.tfstate}" \
  -backend-config="use_azuread_auth=true" "$@" || {
  echo "Not connected. A new role works after some minutes: run this again then. To keep the state on this machine after all, delete" \
    "infra/terraform/backend_override.tf and run \`terraform init -migrate-state\` there." >&2
  exit 1
}
