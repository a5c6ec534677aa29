output "url" {
  description = "Address of the API."
  value       = "https://${var.domain_name}"
}

output "image" {
  description = "Image that runs."
  value       = var.image

  # What could not be deployed does not run.
  depends_on = [module.api, module.worker]
}

output "load_balancer_dns_name" {
  description = "Host name of the load balancer, for DNS that is not in Route 53."
  value       = module.edge.load_balancer_dns_name
}

output "queue_urls" {
  description = "URLs of the queues, by name; dead-letter queues end in -dlq."
  value       = module.queues.urls
}

output "dashboard_url" {
  description = "Address of the dashboard."
  value       = module.observability.dashboard_url
}

output "alarm_topic_arn" {
  description = "ARN of the topic that gets all alarms."
  value       = module.observability.topic_arn
}

output "cluster" {
  description = "Name of the ECS cluster."
  value       = aws_ecs_cluster.this.name
}

output "task_definitions" {
  description = "ARNs of the task definitions with their revisions, by role or job."
  value = merge(module.schedule.job_task_definition_arns, {
    api     = module.api.task_definition_arn
    worker  = module.worker.task_definition_arn
    migrate = module.schedule.migration_task_definition_arn
  })
}

output "database_address" {
  description = "Host name of the database."
  value       = module.database.address
}

output "secret_arns" {
  description = "ARNs of the secrets: card keys where they are not in KMS, the secrets at payment gateways where there are any, and the master password that RDS rotates."
  value = {
    card_keys       = one(module.card_keys[*].arn)
    gateway         = one(module.gateway_secret[*].arn)
    gateways        = one(module.gateway_secrets[*].arn)
    database_master = module.database.master_secret_arn
  }
}
