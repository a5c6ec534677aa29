output "urls" {
  description = "URLs of the queues, by name; dead-letter queues end in -dlq."
  value       = { for name, queue in local.all : name => queue.url }
}

output "arns" {
  description = "ARNs of the queues, by name; dead-letter queues end in -dlq."
  value       = { for name, queue in local.all : name => queue.arn }
}

output "key_arn" {
  description = "ARN of the key that encrypts the messages."
  value       = module.key.arn
}
