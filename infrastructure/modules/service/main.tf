module "task" {
  source             = "../task"
  name               = var.name
  aws                = var.aws
  image              = var.image
  repository_arn     = var.repository_arn
  command            = var.command
  cpu                = var.cpu
  memory_mib         = var.memory_mib
  port               = try(var.load_balancer.port, null)
  health_check       = true
  environment        = var.environment
  secrets            = var.secrets
  statements         = var.statements
  log_retention_days = var.log_retention_days
  log_key_arn        = var.log_key_arn
}

resource "aws_ecs_service" "this" {
  name             = var.name
  cluster          = var.cluster_arn
  task_definition  = module.task.task_definition_arn
  launch_type      = "FARGATE"
  platform_version = "LATEST"
  desired_count    = var.scaling.min

  # New tasks must live before old ones go, and a version that does not start is taken back.
  deployment_minimum_healthy_percent = 100
  deployment_maximum_percent         = 200
  deployment_circuit_breaker {
    enable   = true
    rollback = true
  }
  wait_for_steady_state = var.wait_for_steady_state

  # Nobody gets a shell in a container that holds card keys.
  enable_execute_command = false
  propagate_tags         = "SERVICE"

  # After a zone was away, tasks spread over all zones again.
  availability_zone_rebalancing = "ENABLED"

  network_configuration {
    subnets          = var.subnet_ids
    security_groups  = [var.security_group_id]
    assign_public_ip = false
  }

  dynamic "load_balancer" {
    for_each = var.load_balancer[*]
    content {
      target_group_arn = load_balancer.value.target_group_arn
      container_name   = "psp"
      container_port   = load_balancer.value.port
    }
  }
  health_check_grace_period_seconds = var.load_balancer == null ? null : 60

  lifecycle {
    # Autoscaling decides.
    ignore_changes = [desired_count]

    # What ECS has taken back is as steady as what it has started.
    postcondition {
      condition     = self.task_definition == module.task.task_definition_arn
      error_message = "ECS has taken the deployment of ${var.name} back: its events and the log say why. The version before runs on."
    }
  }
}
