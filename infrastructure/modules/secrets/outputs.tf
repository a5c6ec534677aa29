output "card_keys_arn" {
  description = "ARN of the secret with the card keys."
  value       = aws_secretsmanager_secret.card_keys.arn
}

output "card_keys_value_from" {
  description = "The present version of the card keys, as a container definition names it. New keys thereby make a new task definition, and ECS replaces the tasks."
  value       = "${aws_secretsmanager_secret.card_keys.arn}:::${aws_secretsmanager_secret_version.card_keys.version_id}"
}

output "key_arn" {
  description = "ARN of the key that encrypts the secrets."
  value       = module.key.arn
}
