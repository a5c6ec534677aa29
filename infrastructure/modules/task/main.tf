# A task definition with its own log group and two roles: the execution role, with which ECS pulls the image, reads the secrets
# and writes the log; and the task role, which is what the process may do.
locals {
  arn_prefix = "arn:${var.aws.partition}"

  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Principal = { Service = "ecs-tasks.amazonaws.com" }
      Action    = "sts:AssumeRole"
      Condition = {
        StringEquals = { "aws:SourceAccount" = var.aws.account_id }
        ArnLike      = { "aws:SourceArn" = "${local.arn_prefix}:ecs:${var.aws.region}:${var.aws.account_id}:*" }
      }
    }]
  })
}

resource "aws_cloudwatch_log_group" "this" {
  name              = "/${var.name}"
  retention_in_days = var.log_retention_days
  kms_key_id        = var.log_key_arn
}

resource "aws_iam_role" "execution" {
  name               = "${var.name}-execution"
  assume_role_policy = local.assume_role_policy
}

resource "aws_iam_role_policy" "execution" {
  name = "start-the-task"
  role = aws_iam_role.execution.id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        # AWS knows no narrower resource for this action.
        Sid      = "LogInToRegistry"
        Effect   = "Allow"
        Action   = "ecr:GetAuthorizationToken"
        Resource = "*"
      },
      {
        Sid      = "PullImage"
        Effect   = "Allow"
        Action   = ["ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"]
        Resource = var.repository_arn
      },
      {
        Sid      = "WriteLog"
        Effect   = "Allow"
        Action   = ["logs:CreateLogStream", "logs:PutLogEvents"]
        Resource = "${local.arn_prefix}:logs:${var.aws.region}:${var.aws.account_id}:log-group:/${var.name}:*"
      },
    ]
  })
}

resource "aws_iam_role_policy" "secrets" {
  count = length(var.secrets) > 0 ? 1 : 0
  name  = "read-the-secrets"
  role  = aws_iam_role.execution.id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid      = "ReadSecrets"
        Effect   = "Allow"
        Action   = "secretsmanager:GetSecretValue"
        Resource = [for secret in values(var.secrets) : secret.secret_arn]
      },
      {
        Sid       = "DecryptSecrets"
        Effect    = "Allow"
        Action    = "kms:Decrypt"
        Resource  = distinct([for secret in values(var.secrets) : secret.key_arn])
        Condition = { StringEquals = { "kms:ViaService" = "secretsmanager.${var.aws.region}.amazonaws.com" } }
      },
    ]
  })
}

resource "aws_iam_role" "task" {
  name               = "${var.name}-task"
  assume_role_policy = local.assume_role_policy
}

resource "aws_iam_role_policy" "task" {
  count = length(var.statements) > 0 ? 1 : 0
  name  = "what-the-process-does"
  role  = aws_iam_role.task.id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [for statement in var.statements : merge(
      {
        Sid      = statement.sid
        Effect   = "Allow"
        Action   = statement.actions
        Resource = statement.resources
      },
      { for key, value in { Condition = statement.condition } : key => value if value != null },
    )]
  })
}

resource "aws_ecs_task_definition" "this" {
  family                   = var.name
  requires_compatibilities = ["FARGATE"]
  network_mode             = "awsvpc"
  cpu                      = var.cpu
  memory                   = var.memory_mib
  execution_role_arn       = aws_iam_role.execution.arn
  task_role_arn            = aws_iam_role.task.arn

  runtime_platform {
    operating_system_family = "LINUX"
    cpu_architecture        = "X86_64"
  }

  container_definitions = jsonencode([merge(
    {
      name                   = "psp"
      image                  = var.image
      essential              = true
      command                = var.command
      user                   = "65532:65532"
      readonlyRootFilesystem = true
      # Above PSP_SHUTDOWN_GRACE_MS, so that a stop in order is never cut off.
      stopTimeout     = 60
      linuxParameters = { capabilities = { drop = ["ALL"] } }
      environment     = [for name, value in var.environment : { name = name, value = value }]
      secrets         = [for name, secret in var.secrets : { name = name, valueFrom = secret.value_from }]
      portMappings    = [for port in var.port[*] : { containerPort = port, hostPort = port, protocol = "tcp" }]
      mountPoints     = []
      volumesFrom     = []
      systemControls  = []
      logConfiguration = {
        logDriver = "awslogs"
        options = {
          awslogs-group         = aws_cloudwatch_log_group.this.name
          awslogs-region        = var.aws.region
          awslogs-stream-prefix = "psp"
          # A slow CloudWatch must not stop payments: lines are dropped instead.
          mode            = "non-blocking"
          max-buffer-size = "8m"
        }
      }
    },
    # Liveness: a database that is away for a minute is no reason to replace tasks.
    { for key, value in { healthCheck = {
      command     = ["CMD", "/usr/local/bin/psp", "healthcheck", "--live"]
      interval    = 10
      timeout     = 5
      retries     = 3
      startPeriod = 30
    } } : key => value if var.health_check },
  )])
}
