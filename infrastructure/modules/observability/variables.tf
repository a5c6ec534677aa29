variable "name" {
  description = "What the names of all resources start with."
  type        = string
}

variable "region" {
  description = "AWS region."
  type        = string
}

variable "key_arn" {
  description = "ARN of the key that encrypts notifications."
  type        = string
}

variable "emails" {
  description = "Addresses that get the alarms; each has to confirm once."
  type        = set(string)
}

variable "cluster_arn" {
  description = "ARN of the ECS cluster."
  type        = string
}

variable "cluster_name" {
  description = "Name of the ECS cluster."
  type        = string
}

variable "services" {
  description = "The services, by role: their names."
  type        = map(object({ name = string }))
}

variable "log_group_names" {
  description = "Names of the log groups of services and jobs, by role; worker and settle-payables are among them."
  type        = map(string)
}

variable "job_families" {
  description = "Families of the task definitions whose failures are told."
  type        = list(string)
}

variable "load_balancer_suffix" {
  description = "Name of the load balancer in metrics."
  type        = string
}

variable "target_group_suffix" {
  description = "Name of the API's target group in metrics."
  type        = string
}

variable "queue_names" {
  description = "Full names of the queues, by short name."
  type        = map(string)
}

variable "dead_letter_queue_names" {
  description = "Full names of the dead-letter queues, by short name."
  type        = map(string)
}

variable "database" {
  description = "The database: identifier, connections that it accepts, and the free storage in GiB below which there is an alarm."
  type = object({
    identifier       = string
    max_connections  = number
    free_storage_gib = number
  })
}

variable "queue_age_seconds" {
  description = "How long a message may wait before there is an alarm, in seconds."
  type        = number
}

variable "p95_seconds" {
  description = "How long 95 % of the requests may take before there is an alarm, in seconds."
  type        = number
}

variable "success_percent" {
  description = "Share of requests without 5xx below which there is an alarm, in percent."
  type        = number
}

variable "settlement_overdue_hours" {
  description = "Hours without a settlement run that ended well, after which there is an alarm."
  type        = number

  validation {
    condition     = var.settlement_overdue_hours > 24 && var.settlement_overdue_hours <= 168
    error_message = "Settlement runs daily, and CloudWatch looks back for a week at most: 25 to 168 hours."
  }
}

variable "composite_alarms" {
  description = "Whether there is the alarm that sums up the others."
  type        = bool
}
