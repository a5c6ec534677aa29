variable "name" {
  description = "Identifier of the instance, and what other names start with."
  type        = string
}

variable "vpc_id" {
  description = "Id of the VPC."
  type        = string
}

variable "subnet_ids" {
  description = "Ids of the subnets of the database, in at least two zones."
  type        = list(string)
}

variable "client_security_group_ids" {
  description = "Ids of the security groups that may connect, by name."
  type        = map(string)
}

variable "engine_version" {
  description = "Version of Postgres: the major one, or major and minor."
  type        = string
}

variable "instance_class" {
  description = "Class of the instance."
  type        = string
}

variable "master_username" {
  description = "Login that owns the schema; only the migration uses it."
  type        = string
}

variable "allocated_storage_gib" {
  description = "Storage at the start, in GiB."
  type        = number
}

variable "max_allocated_storage_gib" {
  description = "What the storage may grow to by itself, in GiB."
  type        = number

  validation {
    condition     = var.max_allocated_storage_gib > var.allocated_storage_gib
    error_message = "The storage must be allowed to grow: max_allocated_storage_gib has to be above allocated_storage_gib."
  }
}

variable "max_connections" {
  description = "Connections that the server accepts."
  type        = number
}

variable "multi_az" {
  description = "Whether a standby in another zone takes over when the instance fails."
  type        = bool
}

variable "backup_retention_days" {
  description = "How far back the database can be restored to any second, in days."
  type        = number

  validation {
    condition     = var.backup_retention_days >= 1 && var.backup_retention_days <= 35
    error_message = "RDS keeps backups for 1 to 35 days."
  }
}

variable "deletion_protection" {
  description = "Whether the instance refuses to be deleted; changes then wait for the maintenance window, too."
  type        = bool
}

variable "log_retention_days" {
  description = "How long the logs of the server are kept, in days."
  type        = number
}

variable "log_key_arn" {
  description = "ARN of the key that encrypts the logs."
  type        = string
}
