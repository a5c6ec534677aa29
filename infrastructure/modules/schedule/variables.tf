variable "name" {
  description = "What the names of all resources start with."
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

variable "image" {
  description = "Image with its tag or digest."
  type        = string
}

variable "repository_arn" {
  description = "ARN of the repository that holds the image."
  type        = string
}

variable "cpu" {
  description = "CPU of a task in units of 1/1024 of a core."
  type        = number
}

variable "memory_mib" {
  description = "Memory of a task in MiB."
  type        = number
}

variable "jobs" {
  description = "The jobs, by name: arguments of psp, schedule expression of EventBridge in UTC, and what the process may do on AWS."
  type = map(object({
    command    = list(string)
    schedule   = string
    statements = list(object({ sid = string, actions = list(string), resources = list(string), condition = optional(map(map(string))) }))
  }))
}

variable "environment" {
  description = "Variables of the jobs' environment: the jobs need no secrets."
  type        = map(string)
}

variable "migration" {
  description = "The migration: login to make for the services, its environment and secrets, and the id of the database, whose change runs it again."
  type = object({
    service_login = string
    environment   = map(string)
    secrets       = map(object({ value_from = string, secret_arn = string, key_arn = string }))
    database_id   = string
  })
}

variable "run_migration" {
  description = "Whether an apply runs the migration."
  type        = bool
}

variable "subnet_ids" {
  description = "Ids of the private subnets."
  type        = list(string)
}

variable "security_group_ids" {
  description = "Ids of the security groups of the kinds of tasks, among them jobs and migrate."
  type        = map(string)
}

variable "queue_key_arn" {
  description = "ARN of the key that encrypts schedules and the queue of runs that could not be started."
  type        = string
}

variable "log_retention_days" {
  description = "How long logs are kept, in days."
  type        = number
}

variable "log_key_arn" {
  description = "ARN of the key that encrypts logs."
  type        = string
}
