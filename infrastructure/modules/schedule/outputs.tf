output "migration_task_definition_arn" {
  description = "ARN of the task definition of the migration, with its revision."
  value       = module.migration.task_definition_arn
}

output "job_families" {
  description = "Families of the jobs' task definitions, by job."
  value       = { for name, job in module.job : name => job.family }
}

output "job_task_definition_arns" {
  description = "ARNs of the jobs' task definitions with their revisions, by job."
  value       = { for name, job in module.job : name => job.task_definition_arn }
}

output "log_group_names" {
  description = "Names of the log groups, by job; the migration is migrate."
  value       = merge({ for name, job in module.job : name => job.log_group_name }, { migrate = module.migration.log_group_name })
}

output "dead_letter_queue_name" {
  description = "Name of the queue of runs that could not be started."
  value       = aws_sqs_queue.failed.name
}
