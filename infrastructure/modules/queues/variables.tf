variable "prefix" {
  description = "What the names of the queues start with, as in PSP_SQS_PREFIX."
  type        = string
}

variable "queues" {
  description = "The queues, by name without prefix. Each gets a dead-letter queue with -dlq behind its name."
  type = map(object({
    visibility_timeout_seconds = optional(number, 30)      # Workers extend it while they live.
    retention_seconds          = optional(number, 1209600) # 14 days, the longest: what expires is lost.
    max_receives               = optional(number, 5)
  }))
}

variable "redrive_allow_policy" {
  description = "Whether a dead-letter queue refuses messages from other queues than its own."
  type        = bool
}
