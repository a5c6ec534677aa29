output "task_definition_arn" {
  description = "ARN of the task definition, with its revision."
  value       = aws_ecs_task_definition.this.arn

  # A task that starts before its roles may do anything fails.
  depends_on = [aws_iam_role_policy.execution, aws_iam_role_policy.secrets, aws_iam_role_policy.task]
}

output "family" {
  description = "Family of the task definition."
  value       = aws_ecs_task_definition.this.family
}

output "variables" {
  description = "Names of the variables that the process is given."
  value       = concat(keys(var.environment), keys(var.secrets))
}

output "role_arns" {
  description = "ARNs of the execution and the task role, which whoever starts the task must be allowed to pass."
  value       = [aws_iam_role.execution.arn, aws_iam_role.task.arn]
}

output "log_group_name" {
  description = "Name of the log group."
  value       = aws_cloudwatch_log_group.this.name
}
