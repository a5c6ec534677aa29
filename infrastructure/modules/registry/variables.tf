variable "name" {
  description = "Name of the repository."
  type        = string
}

variable "images_kept" {
  description = "How many images are kept."
  type        = number
  default     = 50

  validation {
    condition     = var.images_kept >= 10
    error_message = "Keep at least 10 images: the one that runs must not expire, nor those to roll back to."
  }
}
