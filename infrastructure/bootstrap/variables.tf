variable "region" {
  description = "AWS region of the state bucket and the registry."
  type        = string

  validation {
    condition     = can(regex("^[a-z]{2}(-[a-z]+)+-[0-9]$", var.region))
    error_message = "The region looks like sa-east-1."
  }
}

variable "repository" {
  description = "The repository on GitHub whose workflows deploy: owner/name."
  type        = string

  validation {
    condition     = can(regex("^[A-Za-z0-9-]+/[A-Za-z0-9._-]+$", var.repository))
    error_message = "The repository is owner/name, without address and wildcard."
  }
}

variable "repository_ids" {
  description = "Numbers of the owner and the repository, which GitHub writes into its tokens for repositories that were made, renamed or transferred since July 2026 (gh api repos/OWNER/NAME --jq '[.owner.id, .id]'); null for older ones."
  type        = object({ owner = number, repository = number })
  default     = null
}

variable "create_oidc_provider" {
  description = "Whether GitHub's identity provider is to be made: an account has one, so false where there is one already."
  type        = bool
  default     = true
}

variable "environments" {
  description = "Environments that are deployed into this account. Each needs an environment of the same name on GitHub, with required reviewers."
  type        = set(string)
  default     = ["dev", "prod"]

  validation {
    condition     = alltrue([for name in var.environments : can(regex("^[a-z][a-z0-9]{1,11}$", name))])
    error_message = "An environment is 2 to 12 lower-case letters and digits and starts with a letter, such as dev or prod."
  }
}
