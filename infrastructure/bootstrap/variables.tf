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

variable "environments" {
  description = "Environments that are deployed into this account. Each needs an environment of the same name on GitHub, with required reviewers."
  type        = set(string)
  default     = ["dev", "prod"]

  validation {
    condition     = alltrue([for name in var.environments : can(regex("^[a-z][a-z0-9]{1,11}$", name))])
    error_message = "An environment is 2 to 12 lower-case letters and digits and starts with a letter, such as dev or prod."
  }
}
