variable "name" {
  description = "Name of the secret; AWS' random characters follow."
  type        = string
}

variable "description" {
  description = "What the secret is."
  type        = string
}

variable "key_arn" {
  description = "ARN of the key that encrypts it."
  type        = string
}

variable "input" {
  description = "Name of the input of the stack that has the value: for the message where it is missing."
  type        = string
}

variable "value" {
  description = "Its value; used only where value_version is new."
  type        = string
  sensitive   = true
  ephemeral   = true
}

variable "value_version" {
  description = "Number of the value; a new number writes it."
  type        = number
}
