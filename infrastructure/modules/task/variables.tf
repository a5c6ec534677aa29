variable "name" {
  description = "Family of the task definition; the log group and the roles are named after it."
  type        = string
}

# Not from data sources: those are read late in modules that depend on others, and plans would say less than they could.
variable "aws" {
  description = "Partition of AWS, number of the account, and region."
  type        = object({ partition = string, account_id = string, region = string })
}

variable "image" {
  description = "Image with its tag or digest."
  type        = string
}

variable "repository_arn" {
  description = "ARN of the repository that holds the image."
  type        = string
}

variable "command" {
  description = "Arguments of psp: the role."
  type        = list(string)
}

variable "cpu" {
  description = "CPU in units of 1/1024 of a core."
  type        = number

  validation {
    condition     = contains([256, 512, 1024, 2048, 4096, 8192, 16384], var.cpu)
    error_message = "Fargate has 256, 512, 1024, 2048, 4096, 8192 and 16384 units of CPU."
  }
}

variable "memory_mib" {
  description = "Memory in MiB."
  type        = number

  validation {
    condition     = var.memory_mib >= var.cpu * 2 && var.memory_mib <= var.cpu * 8
    error_message = "Fargate gives 2 to 8 MiB of memory for each unit of CPU."
  }
}

variable "port" {
  description = "TCP port that the process listens on; null for none."
  type        = number
  default     = null
}

variable "health_check" {
  description = "Whether the process has a health address to ask."
  type        = bool
  default     = false
}

variable "environment" {
  description = "Variables of the environment that are no secrets."
  type        = map(string)
}

variable "secrets" {
  description = "Variables of the environment that come from Secrets Manager: what to inject, the secret it is in and the key that encrypts it."
  type = map(object({
    value_from = string
    secret_arn = string
    key_arn    = string
  }))
  default = {}
}

variable "statements" {
  description = "What the process may do on AWS, and on what condition (operator, key, value)."
  type = list(object({
    sid       = string
    actions   = list(string)
    resources = list(string)
    condition = optional(map(map(string)))
  }))
  default = []

  validation {
    condition     = alltrue([for statement in var.statements : !contains(statement.resources, "*") && !anytrue([for action in statement.actions : strcontains(action, "*")])])
    error_message = "Name the actions and the resources: neither may be a wildcard."
  }
}

variable "log_retention_days" {
  description = "How long the log is kept, in days."
  type        = number
}

variable "log_key_arn" {
  description = "ARN of the key that encrypts the log."
  type        = string
}
