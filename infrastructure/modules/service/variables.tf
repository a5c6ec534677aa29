variable "name" {
  description = "Name of the service and what else belongs to it."
  type        = string
}

# Not from data sources: those are read late in modules that depend on others, and plans would say less than they could.
variable "aws" {
  description = "Partition of AWS, number of the account, and region."
  type        = object({ partition = string, account_id = string, region = string })
}

variable "cluster_arn" {
  description = "ARN of the ECS cluster."
  type        = string
}

variable "cluster_name" {
  description = "Name of the ECS cluster."
  type        = string
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
  description = "CPU of a task in units of 1/1024 of a core."
  type        = number
}

variable "memory_mib" {
  description = "Memory of a task in MiB."
  type        = number
}

variable "environment" {
  description = "Variables of the environment that are no secrets."
  type        = map(string)
}

variable "secrets" {
  description = "Variables of the environment that come from Secrets Manager, as in the module task."
  type        = map(object({ value_from = string, secret_arn = string, key_arn = string }))
}

variable "statements" {
  description = "What the process may do on AWS, as in the module task."
  type        = list(object({ sid = string, actions = list(string), resources = list(string), condition = optional(map(map(string))) }))
}

variable "subnet_ids" {
  description = "Ids of the private subnets."
  type        = list(string)
}

variable "security_group_id" {
  description = "Id of the security group of the tasks."
  type        = string
}

variable "load_balancer" {
  description = "Target group and TCP port, where a load balancer is in front; otherwise null."
  type        = object({ target_group_arn = string, port = number })
  default     = null
}

variable "scaling" {
  description = "Bounds of the number of tasks; mean CPU in percent to hold; requests per minute and task, and messages that wait per task, to hold where they are set."
  type = object({
    min         = number
    max         = number
    cpu_percent = number
    requests    = optional(object({ per_task = number, resource_label = string }))
    backlog     = optional(object({ per_task = number, queue_name = string }))
  })

  validation {
    condition     = var.scaling.min >= 1 && var.scaling.max >= var.scaling.min
    error_message = "A service has at least one task, and its maximum is not below its minimum."
  }
}

variable "wait_for_steady_state" {
  description = "Whether an apply waits until the new tasks run, and thus fails when they do not."
  type        = bool
}

variable "log_retention_days" {
  description = "How long the log is kept, in days."
  type        = number
}

variable "log_key_arn" {
  description = "ARN of the key that encrypts the log."
  type        = string
}
