mock_provider "aws" {
  source          = "./tests/mocks"
  override_during = plan
}

variables {
  name           = "psp-test"
  aws            = { partition = "aws", account_id = "123456789012", region = "sa-east-1" }
  cluster_arn    = "arn:aws:ecs:sa-east-1:123456789012:cluster/psp-test"
  image          = "123456789012.dkr.ecr.sa-east-1.amazonaws.com/psp:1.0.0"
  repository_arn = "arn:aws:ecr:sa-east-1:123456789012:repository/psp"
  cpu            = 256
  memory_mib     = 512
  environment    = { PSP_QUEUE = "sqs" }
  jobs = {
    settle-payables = { command = ["job", "settle-payables"], schedule = "cron(5 0 * * ? *)", statements = [] }
  }
  migration = {
    service_login = "psp"
    environment   = { PSP_DATABASE_AUTH = "password" }
    secrets = {
      PSP_DATABASE_PASSWORD = { value_from = "arn:aws:secretsmanager:sa-east-1:123456789012:secret:master:password::", secret_arn = "arn:aws:secretsmanager:sa-east-1:123456789012:secret:master", key_arn = "arn:aws:kms:sa-east-1:123456789012:key/database" }
    }
    database_id = "db-1"
  }
  run_migration      = true
  subnet_ids         = ["subnet-1", "subnet-2"]
  security_group_ids = { jobs = "sg-1", migrate = "sg-2" }
  queue_key_arn      = "arn:aws:kms:sa-east-1:123456789012:key/queues"
  log_retention_days = 30
  log_key_arn        = "arn:aws:kms:sa-east-1:123456789012:key/logs"
}

run "settlement_runs_daily_on_fargate" {
  command = plan
  module {
    source = "./modules/schedule"
  }

  assert {
    condition     = aws_scheduler_schedule.this["settle-payables"].schedule_expression == "cron(5 0 * * ? *)" && aws_scheduler_schedule.this["settle-payables"].schedule_expression_timezone == "UTC"
    error_message = "Settlement has its schedule, in UTC."
  }
  assert {
    condition     = alltrue([for schedule in aws_scheduler_schedule.this : schedule.target[0].ecs_parameters[0].launch_type == "FARGATE" && !schedule.target[0].ecs_parameters[0].network_configuration[0].assign_public_ip])
    error_message = "Jobs are Fargate tasks without public addresses."
  }
  assert {
    condition     = alltrue([for schedule in aws_scheduler_schedule.this : schedule.target[0].retry_policy[0].maximum_retry_attempts > 0 && schedule.target[0].dead_letter_config[0].arn == aws_sqs_queue.failed.arn])
    error_message = "A run that cannot be started is tried again, and then put aside."
  }
  assert {
    condition     = aws_sqs_queue.failed.kms_master_key_id == var.queue_key_arn && aws_sqs_queue.failed.message_retention_seconds == 1209600
    error_message = "What was put aside is encrypted and kept for 14 days."
  }
}

run "the_scheduler_may_only_start_jobs" {
  command = plan
  module {
    source = "./modules/schedule"
  }

  assert {
    condition     = alltrue([for statement in jsondecode(aws_iam_role_policy.scheduler.policy).Statement : !contains(flatten([statement.Resource]), "*") && alltrue([for action in flatten([statement.Action]) : !strcontains(action, "*")])])
    error_message = "The scheduler's role names its actions and resources."
  }
  assert {
    condition     = flatten([for statement in jsondecode(aws_iam_role_policy.scheduler.policy).Statement : statement.Resource if statement.Action == "ecs:RunTask"]) == ["arn:aws:ecs:sa-east-1:123456789012:task-definition/psp-test-settle-payables:*"]
    error_message = "The scheduler starts the jobs, and not the migration."
  }
}

run "the_migration_is_part_of_the_apply" {
  command = plan
  module {
    source = "./modules/schedule"
  }

  assert {
    condition     = length(terraform_data.migration) == 1 && contains(terraform_data.migration[0].triggers_replace, "db-1")
    error_message = "A new task definition or another database runs the migration."
  }
}

run "emulators_run_no_migration" {
  command = plan
  module {
    source = "./modules/schedule"
  }
  variables {
    run_migration = false
  }

  assert {
    condition     = length(terraform_data.migration) == 0
    error_message = "The switch for emulators works."
  }
}
