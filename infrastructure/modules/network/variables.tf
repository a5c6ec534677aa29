variable "name" {
  description = "What the names of all resources start with."
  type        = string
}

variable "region" {
  description = "AWS region."
  type        = string
}

variable "cidr" {
  description = "IPv4 range of the VPC."
  type        = string
}

variable "zones" {
  description = "Names of the availability zones, at least two."
  type        = list(string)

  validation {
    condition     = length(var.zones) >= 2 && length(var.zones) <= 3
    error_message = "Two or three availability zones are needed: the load balancer and the database do not start in fewer."
  }
}

variable "single_nat_gateway" {
  description = "Whether one NAT gateway serves all zones, rather than one each."
  type        = bool
}

variable "interface_endpoints" {
  description = "Whether tasks reach AWS through interface endpoints, rather than through the NAT gateway."
  type        = bool
}

variable "kms_endpoint" {
  description = "Whether KMS is among the interface endpoints, where there are any: for tasks that ask it themselves."
  type        = bool
  default     = false
}

variable "gateway_cidrs" {
  description = "IPv4 ranges of payment gateways that the worker may reach on port 443."
  type        = list(string)
}

variable "webhooks" {
  description = "Whether the worker may connect to webhook endpoints anywhere, by HTTPS."
  type        = bool
}

variable "task_groups" {
  description = "Names of the kinds of tasks that get a security group each; one of them is worker."
  type        = set(string)
}

variable "log_retention_days" {
  description = "How long flow logs are kept, in days."
  type        = number
}

variable "log_key_arn" {
  description = "ARN of the key that encrypts the flow logs."
  type        = string
}
