output "arn" {
  description = "ARN of the secret."
  value       = aws_secretsmanager_secret.this.arn
}

output "for_tasks" {
  description = "The present version as the module task takes it. A new value thereby makes a new task definition, and ECS replaces the tasks."
  value = {
    value_from = "${aws_secretsmanager_secret.this.arn}:::${aws_secretsmanager_secret_version.this.version_id}"
    secret_arn = aws_secretsmanager_secret.this.arn
    key_arn    = var.key_arn
  }
}
