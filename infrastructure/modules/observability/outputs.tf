output "dashboard_url" {
  description = "Address of the dashboard."
  value       = "https://${var.region}.console.aws.amazon.com/cloudwatch/home?region=${var.region}#dashboards/dashboard/${aws_cloudwatch_dashboard.this.dashboard_name}"
}

output "topic_arn" {
  description = "ARN of the topic that gets all alarms."
  value       = aws_sns_topic.alarms.arn
}
