variable "name" {
  description = "Alias of the key, without alias/."
  type        = string
}

variable "description" {
  description = "What the key encrypts."
  type        = string
}

variable "services" {
  description = "AWS services that may use the key: statement id to principal and the condition (operator, key, value) that confines it."
  type = map(object({
    principal = string
    condition = map(map(string))
  }))
  default = {}

  validation {
    condition     = alltrue([for grant in values(var.services) : length(grant.condition) > 0])
    error_message = "Every service needs a condition, or it could use the key on behalf of other accounts."
  }
}
