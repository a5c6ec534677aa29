data "aws_caller_identity" "current" {}
data "aws_partition" "current" {}

locals {
  name       = "psp-${var.environment}"
  account_id = data.aws_caller_identity.current.account_id
  arn_prefix = "arn:${data.aws_partition.current.partition}"
  aws        = { partition = data.aws_partition.current.partition, account_id = local.account_id, region = var.region }
  api_port   = 3000

  image          = regex(local.image_pattern, var.image)
  image_pattern  = "^(?P<account>[0-9]{12})\\.dkr\\.ecr\\.(?P<region>[a-z0-9-]+)\\.amazonaws\\.com(?:\\.cn)?/(?P<repository>[a-z0-9._/-]+)(?::[\\w.-]+)?(?:@sha256:[0-9a-f]{64})?$"
  repository_arn = "${local.arn_prefix}:ecr:${local.image.region}:${local.image.account}:repository/${local.image.repository}"

  # Every queue that psp uses. A new one is one line here.
  queues = {
    transactions        = {}
    payables-settlement = {}
    gateway-callbacks   = {}
    refunds             = {}
    orders              = {}
  }
}

module "logs_key" {
  source      = "./modules/key"
  name        = "${local.name}-logs"
  description = "Logs and alarms of ${local.name}"
  services = {
    Logs = {
      principal = "logs.${var.region}.amazonaws.com"
      condition = { ArnLike = { "kms:EncryptionContext:aws:logs:arn" = "${local.arn_prefix}:logs:${var.region}:${local.account_id}:log-group:*" } }
    }
    Alarms = {
      principal = "cloudwatch.amazonaws.com"
      condition = { StringEquals = { "aws:SourceAccount" = local.account_id } }
    }
    # EventBridge says nothing of its account here; the topic's name is what SNS encrypts with.
    Events = {
      principal = "events.amazonaws.com"
      condition = { StringEquals = { "kms:EncryptionContext:aws:sns:topicArn" = "${local.arn_prefix}:sns:${var.region}:${local.account_id}:${local.name}-alarms" } }
    }
  }
}

module "network" {
  source              = "./modules/network"
  name                = local.name
  region              = var.region
  cidr                = var.vpc_cidr
  zones               = var.zones
  single_nat_gateway  = var.single_nat_gateway
  interface_endpoints = var.interface_endpoints
  kms_endpoint        = var.card_key_in_kms
  gateway_cidrs       = var.gateway_cidrs
  webhooks            = var.webhooks
  task_groups         = ["api", "worker", "jobs", "migrate"]
  log_retention_days  = var.log_retention_days
  log_key_arn         = module.logs_key.arn
}

module "database" {
  source                    = "./modules/database"
  name                      = local.name
  vpc_id                    = module.network.vpc_id
  subnet_ids                = module.network.database_subnet_ids
  client_security_group_ids = module.network.task_security_group_ids
  engine_version            = var.database.engine_version
  instance_class            = var.database.instance_class
  master_username           = local.master_login
  allocated_storage_gib     = var.database.allocated_storage_gib
  max_allocated_storage_gib = var.database.max_allocated_storage_gib
  max_connections           = var.database.max_connections
  multi_az                  = var.database.multi_az
  backup_retention_days     = var.database.backup_retention_days
  deletion_protection       = var.deletion_protection
  log_retention_days        = var.log_retention_days
  log_key_arn               = module.logs_key.arn
}

module "queues" {
  source               = "./modules/queues"
  prefix               = "${local.name}-"
  queues               = local.queues
  redrive_allow_policy = !var.emulator
}

module "secrets_key" {
  source      = "./modules/key"
  name        = "${local.name}-secrets"
  description = "Card keys of ${local.name}, and its secrets at payment gateways"
}

module "card_master_key" {
  source      = "./modules/key"
  count       = var.card_key_in_kms ? 1 : 0
  name        = "${local.name}-cards"
  description = "Wraps the data keys of sealed cards of ${local.name}"
}

module "card_keys" {
  source        = "./modules/secret"
  count         = var.card_key_in_kms ? 0 : 1
  name          = "${local.name}/card-keys"
  description   = "PSP_CARD_KEYS: keys that seal card numbers; the first seals, all open"
  key_arn       = module.secrets_key.arn
  input         = "card_keys"
  value         = var.card_keys
  value_version = var.card_keys_version
}

module "gateway_secret" {
  source        = "./modules/secret"
  count         = var.gateway == null ? 0 : 1
  name          = "${local.name}/gateway"
  description   = "PSP_GATEWAY_SECRET: what requests to the payment gateway are signed with"
  key_arn       = module.secrets_key.arn
  input         = "gateway_secret"
  value         = var.gateway_secret
  value_version = var.gateway.secret_version
}

module "gateway_secrets" {
  source        = "./modules/secret"
  count         = var.gateway_secrets_version == null ? 0 : 1
  name          = "${local.name}/named-gateways"
  description   = "PSP_GATEWAY_SECRETS: what requests to the gateways of the database are signed with"
  key_arn       = module.secrets_key.arn
  input         = "gateway_secrets"
  value         = var.gateway_secrets
  value_version = var.gateway_secrets_version
}

module "edge" {
  source                = "./modules/edge"
  name                  = local.name
  region                = var.region
  vpc_id                = module.network.vpc_id
  subnet_ids            = var.internal ? module.network.private_subnet_ids : module.network.public_subnet_ids
  internal              = var.internal
  allowed_cidrs         = var.allowed_cidrs
  api_security_group_id = module.network.task_security_group_ids["api"]
  api_port              = local.api_port
  domain_name           = var.domain_name
  zone_id               = var.zone_id
  certificate_arn       = var.certificate_arn
  callbacks             = var.callbacks
  rate_limit            = coalesce(var.rate_limit, 2 * 5 * var.api.max_tasks * var.api.requests_per_task)
  deletion_protection   = var.deletion_protection
  log_retention_days    = var.log_retention_days
  log_key_arn           = module.logs_key.arn
}

resource "aws_ecs_cluster" "this" {
  name = local.name

  # Autoscaling of the worker and the alarms on missing tasks need its metrics.
  setting {
    name  = "containerInsights"
    value = "enabled"
  }
}

module "schedule" {
  source         = "./modules/schedule"
  name           = local.name
  aws            = local.aws
  cluster_arn    = aws_ecs_cluster.this.arn
  image          = var.image
  repository_arn = local.repository_arn
  cpu            = 256
  memory_mib     = 512
  environment    = local.environment
  jobs = {
    settle-payables = {
      command    = ["job", "settle-payables"]
      schedule   = var.settlement_schedule
      statements = concat(local.database_login, local.settlement_queue)
    }
    purge-idempotency-keys = {
      command    = ["job", "purge-idempotency-keys"]
      schedule   = var.purge_schedule
      statements = local.database_login
    }
    shred-cards = {
      command    = ["job", "shred-cards"]
      schedule   = var.shred_schedule
      statements = local.database_login
    }
    purge-events = {
      command    = ["job", "purge-events"]
      schedule   = var.event_purge_schedule
      statements = local.database_login
    }
  }
  migration          = local.migration
  run_migration      = !var.emulator
  subnet_ids         = module.network.private_subnet_ids
  security_group_ids = module.network.task_security_group_ids
  queue_key_arn      = module.queues.key_arn
  log_retention_days = var.log_retention_days
  log_key_arn        = module.logs_key.arn

  # The migration is run while this module is applied, so that the database must be there and reachable.
  depends_on = [module.network, module.database]
}

module "api" {
  source                = "./modules/service"
  name                  = "${local.name}-api"
  aws                   = local.aws
  cluster_arn           = aws_ecs_cluster.this.arn
  cluster_name          = aws_ecs_cluster.this.name
  image                 = var.image
  repository_arn        = local.repository_arn
  command               = ["api"]
  cpu                   = var.api.cpu
  memory_mib            = var.api.memory_mib
  environment           = merge(local.environment, local.card_environment, local.gateway_environment, { PSP_LISTEN = "0.0.0.0:${local.api_port}" })
  secrets               = merge(local.secrets, local.gateway_secrets)
  statements            = concat(local.database_login, local.card_key_use)
  subnet_ids            = module.network.private_subnet_ids
  security_group_id     = module.network.task_security_group_ids["api"]
  load_balancer         = { target_group_arn = module.edge.target_group_arn, port = local.api_port }
  wait_for_steady_state = !var.emulator
  log_retention_days    = var.log_retention_days
  log_key_arn           = module.logs_key.arn
  scaling = {
    min         = var.api.min_tasks
    max         = var.api.max_tasks
    cpu_percent = var.api.cpu_percent
    requests = {
      per_task       = var.api.requests_per_task
      resource_label = "${module.edge.load_balancer_suffix}/${module.edge.target_group_suffix}"
    }
  }

  # The schema first, then the code that needs it.
  depends_on = [module.schedule]
}

module "worker" {
  source                = "./modules/service"
  name                  = "${local.name}-worker"
  aws                   = local.aws
  cluster_arn           = aws_ecs_cluster.this.arn
  cluster_name          = aws_ecs_cluster.this.name
  image                 = var.image
  repository_arn        = local.repository_arn
  command               = ["worker"]
  cpu                   = var.worker.cpu
  memory_mib            = var.worker.memory_mib
  environment           = merge(local.environment, local.card_environment, local.gateway_environment, { PSP_ADMIN_LISTEN = "127.0.0.1:9090" })
  secrets               = merge(local.secrets, local.gateway_secrets)
  statements            = concat(local.database_login, local.worker_queues, local.card_key_use)
  subnet_ids            = module.network.private_subnet_ids
  security_group_id     = module.network.task_security_group_ids["worker"]
  wait_for_steady_state = !var.emulator
  log_retention_days    = var.log_retention_days
  log_key_arn           = module.logs_key.arn
  scaling = {
    min         = var.worker.min_tasks
    max         = var.worker.max_tasks
    cpu_percent = var.worker.cpu_percent
    backlog = {
      per_task   = var.worker.backlog_per_task
      queue_name = "${local.name}-transactions"
    }
  }

  depends_on = [module.schedule]
}

module "observability" {
  source       = "./modules/observability"
  name         = local.name
  region       = var.region
  key_arn      = module.logs_key.arn
  emails       = var.alarm_emails
  cluster_arn  = aws_ecs_cluster.this.arn
  cluster_name = aws_ecs_cluster.this.name
  services     = { api = { name = module.api.name }, worker = { name = module.worker.name } }
  log_group_names = merge(module.schedule.log_group_names, {
    api    = module.api.log_group_name
    worker = module.worker.log_group_name
  })
  job_families            = values(module.schedule.job_families)
  load_balancer_suffix    = module.edge.load_balancer_suffix
  target_group_suffix     = module.edge.target_group_suffix
  queue_names             = { for name in keys(local.queues) : name => "${local.name}-${name}" }
  dead_letter_queue_names = merge({ for name in keys(local.queues) : "${name}-dlq" => "${local.name}-${name}-dlq" }, { schedules-dlq = module.schedule.dead_letter_queue_name })
  database = {
    identifier       = module.database.identifier
    max_connections  = var.database.max_connections
    free_storage_gib = ceil(var.database.allocated_storage_gib * 0.1)
  }
  queue_age_seconds        = var.alarms.queue_age_seconds
  p95_seconds              = var.alarms.p95_seconds
  success_percent          = var.alarms.success_percent
  settlement_overdue_hours = var.alarms.settlement_overdue_hours
  composite_alarms         = !var.emulator
}
