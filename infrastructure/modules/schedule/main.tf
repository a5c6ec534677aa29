locals {
  arn_prefix = "arn:${var.aws.partition}"
}

module "job" {
  source             = "../task"
  for_each           = var.jobs
  name               = "${var.name}-${each.key}"
  aws                = var.aws
  image              = var.image
  repository_arn     = var.repository_arn
  command            = each.value.command
  cpu                = var.cpu
  memory_mib         = var.memory_mib
  environment        = var.environment
  statements         = each.value.statements
  log_retention_days = var.log_retention_days
  log_key_arn        = var.log_key_arn
}

resource "aws_scheduler_schedule_group" "this" {
  name = var.name
}

resource "aws_scheduler_schedule" "this" {
  for_each                     = var.jobs
  name                         = "${var.name}-${each.key}"
  group_name                   = aws_scheduler_schedule_group.this.name
  description                  = "Runs psp ${join(" ", each.value.command)}"
  schedule_expression          = each.value.schedule
  schedule_expression_timezone = "UTC"
  kms_key_arn                  = var.queue_key_arn

  flexible_time_window {
    mode = "OFF"
  }

  target {
    arn      = var.cluster_arn
    role_arn = aws_iam_role.scheduler.arn

    ecs_parameters {
      task_definition_arn = module.job[each.key].task_definition_arn
      launch_type         = "FARGATE"
      platform_version    = "LATEST"
      task_count          = 1

      network_configuration {
        subnets          = var.subnet_ids
        security_groups  = [var.security_group_ids["jobs"]]
        assign_public_ip = false
      }
    }

    retry_policy {
      maximum_retry_attempts       = 10
      maximum_event_age_in_seconds = 3600
    }

    dead_letter_config {
      arn = aws_sqs_queue.failed.arn
    }
  }

  # A job must not meet a schema that is older than itself.
  depends_on = [terraform_data.migration, aws_iam_role_policy.scheduler]
}

# Runs that could not be started. A run that started and failed is seen by its exit code.
resource "aws_sqs_queue" "failed" {
  name                              = "${var.name}-schedules-dlq"
  message_retention_seconds         = 14 * 24 * 3600
  kms_master_key_id                 = var.queue_key_arn
  kms_data_key_reuse_period_seconds = 300
}

resource "aws_sqs_queue_policy" "failed" {
  queue_url = aws_sqs_queue.failed.url
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid       = "NothingWithoutTls"
      Effect    = "Deny"
      Principal = "*"
      Action    = "sqs:*"
      Resource  = aws_sqs_queue.failed.arn
      Condition = { Bool = { "aws:SecureTransport" = "false" } }
    }]
  })
}

resource "aws_iam_role" "scheduler" {
  name = "${var.name}-scheduler"
  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Principal = { Service = "scheduler.amazonaws.com" }
      Action    = "sts:AssumeRole"
      Condition = {
        StringEquals = {
          "aws:SourceAccount" = var.aws.account_id
          "aws:SourceArn"     = "${local.arn_prefix}:scheduler:${var.aws.region}:${var.aws.account_id}:schedule-group/${var.name}"
        }
      }
    }]
  })
}

resource "aws_iam_role_policy" "scheduler" {
  name = "start-jobs"
  role = aws_iam_role.scheduler.id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid       = "RunJobs"
        Effect    = "Allow"
        Action    = "ecs:RunTask"
        Resource  = [for name in keys(var.jobs) : "${local.arn_prefix}:ecs:${var.aws.region}:${var.aws.account_id}:task-definition/${var.name}-${name}:*"]
        Condition = { ArnEquals = { "ecs:cluster" = var.cluster_arn } }
      },
      {
        Sid       = "GiveJobsTheirRoles"
        Effect    = "Allow"
        Action    = "iam:PassRole"
        Resource  = flatten([for job in module.job : job.role_arns])
        Condition = { StringEquals = { "iam:PassedToService" = "ecs-tasks.amazonaws.com" } }
      },
      {
        Sid      = "PutAsideWhatCouldNotBeStarted"
        Effect   = "Allow"
        Action   = "sqs:SendMessage"
        Resource = aws_sqs_queue.failed.arn
      },
      {
        Sid      = "EncryptThatAndTheSchedules"
        Effect   = "Allow"
        Action   = ["kms:Decrypt", "kms:GenerateDataKey"]
        Resource = var.queue_key_arn
      },
    ]
  })
}
