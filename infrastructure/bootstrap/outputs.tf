output "state_bucket" {
  description = "Name of the bucket with the states."
  value       = aws_s3_bucket.state.bucket
}

output "registry_url" {
  description = "Address of the registry, to which a tag is appended."
  value       = module.registry.url
}

output "github_role_arns" {
  description = "ARNs of the roles of the workflows, by purpose."
  value       = { for name, role in aws_iam_role.github : name => role.arn }
}
