variable "name" {
  description = "What the names of all resources start with."
  type        = string
}

variable "region" {
  description = "AWS region."
  type        = string
}

variable "vpc_id" {
  description = "Id of the VPC."
  type        = string
}

variable "subnet_ids" {
  description = "Ids of the subnets of the load balancer: private ones where it is internal."
  type        = list(string)
}

variable "internal" {
  description = "Whether the load balancer has private addresses only."
  type        = bool
}

variable "allowed_cidrs" {
  description = "IPv4 ranges of the clients. Whoever is in them can act as any customer."
  type        = list(string)
}

variable "api_security_group_id" {
  description = "Id of the security group of the API's tasks."
  type        = string
}

variable "api_port" {
  description = "TCP port of the API's tasks."
  type        = number
}

variable "domain_name" {
  description = "Host name of the API."
  type        = string
}

variable "zone_id" {
  description = "Id of the Route 53 zone for the host name and the validation of the certificate; null where DNS is elsewhere."
  type        = string
}

variable "certificate_arn" {
  description = "ARN of a certificate for the host name; null to have one issued."
  type        = string

  validation {
    condition     = var.certificate_arn != null || var.zone_id != null
    error_message = "Set zone_id, so that a certificate can be issued, or certificate_arn to bring one."
  }
}

variable "callbacks" {
  description = "Host name under which gateways call back, ranges from which they come to this load balancer themselves, and ARN of a certificate where none is to be issued; null for no callbacks."
  type        = object({ host_name = string, cidrs = set(string), certificate_arn = optional(string) })
  default     = null
}

variable "rate_limit" {
  description = "Requests of one address within 5 minutes, beyond which it is answered 429."
  type        = number
}

variable "deletion_protection" {
  description = "Whether the load balancer and the bucket of its logs refuse to be deleted."
  type        = bool
}

variable "log_retention_days" {
  description = "How long access logs and the log of the WAF are kept, in days."
  type        = number
}

variable "log_key_arn" {
  description = "ARN of the key that encrypts the log of the WAF."
  type        = string
}
