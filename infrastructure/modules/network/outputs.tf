output "vpc_id" {
  description = "Id of the VPC."
  value       = aws_vpc.this.id
}

output "public_subnet_ids" {
  description = "Ids of the public subnets."
  value       = [for subnet in aws_subnet.public : subnet.id]
}

output "private_subnet_ids" {
  description = "Ids of the private subnets."
  value       = [for subnet in aws_subnet.private : subnet.id]
}

output "database_subnet_ids" {
  description = "Ids of the subnets of the database."
  value       = [for subnet in aws_subnet.database : subnet.id]
}

output "task_security_group_ids" {
  description = "Ids of the security groups of tasks, by kind."
  value       = { for name, group in aws_security_group.task : name => group.id }
}
