variable "name" {
  description = "Name of the repository."
  type        = string
}

variable "releases_kept" {
  description = "How many releases are kept: images with a tag such as v1.2.3 or 1.2.3."
  type        = number
  default     = 500

  validation {
    condition     = var.releases_kept >= 50
    error_message = "The release that runs, and those to roll back to, must not expire: keep 50 or more."
  }
}

variable "build_days" {
  description = "How many days builds of commits are kept, which may run where no release does."
  type        = number
  default     = 180

  validation {
    condition     = var.build_days >= 30
    error_message = "A build that runs in dev must not expire under it: keep them for 30 days or more."
  }
}
