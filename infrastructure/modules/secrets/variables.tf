variable "name" {
  description = "What the names of all resources start with."
  type        = string
}

variable "card_keys" {
  description = "Value of PSP_CARD_KEYS; used only where card_keys_version is new."
  type        = string
  sensitive   = true
  ephemeral   = true
}

variable "card_keys_version" {
  description = "Number of the value; a new number writes card_keys."
  type        = number
}
