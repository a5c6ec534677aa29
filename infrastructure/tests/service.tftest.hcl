mock_provider "aws" {
  source          = "./tests/mocks"
  override_during = plan
}

variables {
  name           = "psp-test-api"
  aws            = { partition = "aws", account_id = "123456789012", region = "sa-east-1" }
  cluster_arn    = "arn:aws:ecs:sa-east-1:123456789012:cluster/psp-test"
  cluster_name   = "psp-test"
  image          = "123456789012.dkr.ecr.sa-east-1.amazonaws.com/psp:1.0.0"
  repository_arn = "arn:aws:ecr:sa-east-1:123456789012:repository/psp"
  command        = ["api"]
  cpu            = 256
  memory_mib     = 512
  environment    = { PSP_QUEUE = "sqs" }
  secrets = {
    PSP_CARD_KEYS = {
      value_from = "arn:aws:secretsmanager:sa-east-1:123456789012:secret:card-keys:::1"
      secret_arn = "arn:aws:secretsmanager:sa-east-1:123456789012:secret:card-keys"
      key_arn    = "arn:aws:kms:sa-east-1:123456789012:key/secrets"
    }
  }
  statements         = [{ sid = "Send", actions = ["sqs:SendMessage"], resources = ["arn:aws:sqs:sa-east-1:123456789012:one"] }]
  subnet_ids         = ["subnet-1", "subnet-2"]
  security_group_id  = "sg-1"
  load_balancer      = { target_group_arn = "arn:aws:elasticloadbalancing:sa-east-1:123456789012:targetgroup/psp/1", port = 3000 }
  log_retention_days = 30
  log_key_arn        = "arn:aws:kms:sa-east-1:123456789012:key/logs"

  wait_for_steady_state = true
  scaling = {
    min         = 2
    max         = 8
    cpu_percent = 60
    requests    = { per_task = 1000, resource_label = "app/a/1/targetgroup/b/2" }
  }

  # What the module task takes besides.
  port         = 3000
  health_check = true
}

run "the_container_is_locked_down" {
  command = plan
  module {
    source = "./modules/task"
  }

  assert {
    condition     = alltrue([for container in jsondecode(aws_ecs_task_definition.this.container_definitions) : container.readonlyRootFilesystem && container.user == "65532:65532" && contains(container.linuxParameters.capabilities.drop, "ALL")])
    error_message = "The root is read-only, the user is not root, and there are no capabilities."
  }
  assert {
    condition     = alltrue([for container in jsondecode(aws_ecs_task_definition.this.container_definitions) : container.stopTimeout > 25])
    error_message = "ECS waits longer than PSP_SHUTDOWN_GRACE_MS before it kills."
  }
  assert {
    condition     = jsondecode(aws_ecs_task_definition.this.container_definitions)[0].healthCheck.command == ["CMD", "/usr/local/bin/psp", "healthcheck", "--live"]
    error_message = "ECS asks the process whether it lives."
  }
  assert {
    condition     = [for secret in jsondecode(aws_ecs_task_definition.this.container_definitions)[0].secrets : secret.name] == ["PSP_CARD_KEYS"] && !strcontains(jsonencode(jsondecode(aws_ecs_task_definition.this.container_definitions)[0].environment), "KEY")
    error_message = "Secrets come from Secrets Manager and not from the environment in the clear."
  }
  assert {
    condition     = aws_cloudwatch_log_group.this.retention_in_days == 30 && aws_cloudwatch_log_group.this.kms_key_id == var.log_key_arn
    error_message = "The log is encrypted and kept for a bounded time."
  }
}

run "least_privilege" {
  command = plan
  module {
    source = "./modules/task"
  }

  assert {
    condition = alltrue([for statement in concat(jsondecode(aws_iam_role_policy.execution.policy).Statement, jsondecode(aws_iam_role_policy.secrets[0].policy).Statement, jsondecode(aws_iam_role_policy.task[0].policy).Statement) :
    alltrue([for action in flatten([statement.Action]) : !strcontains(action, "*")])])
    error_message = "Every action is named."
  }
  assert {
    condition = alltrue([for statement in concat(jsondecode(aws_iam_role_policy.execution.policy).Statement, jsondecode(aws_iam_role_policy.secrets[0].policy).Statement, jsondecode(aws_iam_role_policy.task[0].policy).Statement) :
    !contains(flatten([statement.Resource]), "*") || statement.Action == "ecr:GetAuthorizationToken"])
    error_message = "Every resource is named, but for the one action that has none."
  }
  assert {
    condition     = toset(flatten([for statement in jsondecode(aws_iam_role_policy.secrets[0].policy).Statement : statement.Resource if statement.Action == "secretsmanager:GetSecretValue"])) == toset([var.secrets.PSP_CARD_KEYS.secret_arn])
    error_message = "The execution role reads the secrets of this task and no other."
  }
  assert {
    condition     = !strcontains(aws_iam_role_policy.task[0].policy, "secretsmanager")
    error_message = "The process itself reads no secret."
  }
  assert {
    condition     = alltrue([for role in [aws_iam_role.execution, aws_iam_role.task] : strcontains(role.assume_role_policy, "aws:SourceAccount")])
    error_message = "ECS takes the roles for this account only."
  }
}

run "wildcards_are_refused" {
  command = plan
  module {
    source = "./modules/task"
  }
  variables {
    statements = [{ sid = "All", actions = ["sqs:*"], resources = ["*"] }]
  }
  expect_failures = [var.statements]
}

run "statements_keep_their_conditions" {
  command = plan
  module {
    source = "./modules/task"
  }
  variables {
    statements = [
      { sid = "Send", actions = ["sqs:SendMessage"], resources = ["arn:aws:sqs:sa-east-1:123456789012:one"] },
      {
        sid       = "Wrap"
        actions   = ["kms:Decrypt"]
        resources = ["arn:aws:kms:sa-east-1:123456789012:key/cards"]
        condition = { StringEquals = { "kms:EncryptionContext:psp-purpose" = "card-vault" } }
      },
    ]
  }

  assert {
    condition     = [for statement in jsondecode(aws_iam_role_policy.task[0].policy).Statement : try(statement.Condition.StringEquals["kms:EncryptionContext:psp-purpose"], "")] == ["", "card-vault"]
    error_message = "A statement with a condition has it in the policy, and no other has one."
  }
}

run "sizes_that_fargate_does_not_have" {
  command = plan
  module {
    source = "./modules/task"
  }
  variables {
    cpu = 300
  }
  expect_failures = [var.cpu]
}

run "too_much_memory_for_the_cpu" {
  command = plan
  module {
    source = "./modules/task"
  }
  variables {
    memory_mib = 4096
  }
  expect_failures = [var.memory_mib]
}

run "deployments_roll_back" {
  command = plan
  module {
    source = "./modules/service"
  }

  assert {
    condition     = aws_ecs_service.this.deployment_circuit_breaker[0].enable && aws_ecs_service.this.deployment_circuit_breaker[0].rollback
    error_message = "A version that does not start is taken back."
  }
  assert {
    condition     = aws_ecs_service.this.deployment_minimum_healthy_percent == 100 && aws_ecs_service.this.wait_for_steady_state
    error_message = "Old tasks stay until new ones live, and the apply waits for that."
  }
  assert {
    condition     = !aws_ecs_service.this.network_configuration[0].assign_public_ip && !aws_ecs_service.this.enable_execute_command
    error_message = "Tasks have no public address, and nobody gets a shell in them."
  }
}

run "api_scales_on_cpu_and_requests" {
  command = plan
  module {
    source = "./modules/service"
  }

  assert {
    condition     = aws_appautoscaling_target.this.min_capacity == 2 && aws_appautoscaling_target.this.max_capacity == 8
    error_message = "The bounds of the number of tasks arrive."
  }
  assert {
    condition     = aws_appautoscaling_policy.cpu.target_tracking_scaling_policy_configuration[0].target_value == 60 && aws_appautoscaling_policy.requests[0].target_tracking_scaling_policy_configuration[0].predefined_metric_specification[0].predefined_metric_type == "ALBRequestCountPerTarget"
    error_message = "The API scales on CPU and on requests."
  }
  assert {
    condition     = length(aws_appautoscaling_policy.backlog) == 0
    error_message = "The API does not scale on a queue."
  }
}

run "worker_scales_on_backlog_per_task" {
  command = plan
  module {
    source = "./modules/service"
  }
  variables {
    load_balancer = null
    scaling       = { min = 1, max = 4, cpu_percent = 60, backlog = { per_task = 500, queue_name = "psp-test-transactions" } }
  }

  assert {
    condition     = one([for metric in aws_appautoscaling_policy.backlog[0].target_tracking_scaling_policy_configuration[0].customized_metric_specification[0].metrics : metric.expression if metric.return_data]) == "messages / tasks"
    error_message = "The worker scales on messages per task."
  }
  assert {
    condition     = length(aws_ecs_service.this.load_balancer) == 0 && length(aws_appautoscaling_policy.requests) == 0
    error_message = "The worker has no load balancer."
  }
}

run "bounds_the_wrong_way_round" {
  command = plan
  module {
    source = "./modules/service"
  }
  variables {
    scaling = { min = 3, max = 2, cpu_percent = 60 }
  }
  expect_failures = [var.scaling]
}
