output "target_group_arn" {
  description = "ARN of the target group of the API, once a listener forwards to it: ECS refuses it before."
  value       = aws_lb_target_group.api.arn
  depends_on  = [aws_lb_listener.https]
}

output "target_group_suffix" {
  description = "Name of the target group in metrics."
  value       = aws_lb_target_group.api.arn_suffix
}

output "load_balancer_suffix" {
  description = "Name of the load balancer in metrics."
  value       = aws_lb.this.arn_suffix
}

output "load_balancer_dns_name" {
  description = "Host name that AWS gave the load balancer."
  value       = aws_lb.this.dns_name
}
