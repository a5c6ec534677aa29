output "name" {
  description = "Name of the service."
  value       = aws_ecs_service.this.name
}

output "task_definition_arn" {
  description = "ARN of the task definition, with its revision."
  value       = module.task.task_definition_arn
}

output "variables" {
  description = "Names of the variables that the process is given."
  value       = module.task.variables
}

output "log_group_name" {
  description = "Name of the log group."
  value       = module.task.log_group_name
}
