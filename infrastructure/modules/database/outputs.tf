output "address" {
  description = "Host name of the server."
  value       = aws_db_instance.this.address
}

output "identifier" {
  description = "Identifier of the instance, as metrics name it."
  value       = aws_db_instance.this.identifier
}

output "resource_id" {
  description = "Id of the instance that IAM policies for database logins name."
  value       = aws_db_instance.this.resource_id
}

output "master_secret_arn" {
  description = "ARN of the secret that holds the master password; RDS rotates it."
  value       = aws_db_instance.this.master_user_secret[0].secret_arn
}

output "key_arn" {
  description = "ARN of the key that encrypts the master password."
  value       = module.key.arn
}
