# What the processes are given: environment, secrets, and what they may do on AWS.
locals {
  service_login = "psp"
  master_login  = "psp_admin"

  # The image has the certificates of RDS at this path.
  database_url = { for login in [local.service_login, local.master_login] :
    login => "postgres://${login}@${module.database.address}:5432/psp?sslmode=verify-full&sslrootcert=/etc/ssl/rds/global-bundle.pem"
  }

  environment = {
    AWS_REGION               = var.region
    DATABASE_URL             = local.database_url[local.service_login]
    PSP_DATABASE_AUTH        = "rds_iam"
    PSP_DATABASE_CONNECTIONS = tostring(var.database_connections)
    PSP_QUEUE                = "sqs"
    PSP_SQS_PREFIX           = "${local.name}-"
    PSP_DEFAULT_CUSTOMER     = "default"
    PSP_BREAKER_FAILURES     = "5"
    PSP_BREAKER_OPEN_MS      = "30000"
    PSP_EVENT_RETENTION_DAYS = tostring(var.event_retention_days)
    PSP_WEBHOOK_REACH        = var.webhooks ? "public" : "none"
    PSP_REFUND_FEE           = var.refund_fee
    PSP_LOG_FORMAT           = "json"
  }

  # What seals and opens cards: the API and the worker.
  secrets          = { for secret in module.card_keys : "PSP_CARD_KEYS" => secret.for_tasks }
  card_environment = { for key in module.card_master_key : "PSP_CARD_KMS_KEY" => key.arn }
  card_key_use = [for key in module.card_master_key : {
    sid       = "WrapDataKeysOfCards"
    actions   = ["kms:Decrypt", "kms:GenerateDataKey"]
    resources = [key.arn]
    # What psp names in every call, so that nothing else can be encrypted or decrypted.
    condition = { StringEquals = { "kms:EncryptionContext:psp-purpose" = "card-vault" } }
  }]

  # For the worker, which asks gateways, and the API, which knows their names and verifies their callbacks. Without a gateway
  # psp pays through its sandbox, which charges nobody.
  gateway_environment = merge(
    var.gateway == null ? {} : { PSP_GATEWAY_URL = var.gateway.url },
    var.callbacks == null ? {} : { PSP_PUBLIC_URL = "https://${var.callbacks.host_name}" },
  )
  gateway_secrets = merge(
    { for secret in module.gateway_secret : "PSP_GATEWAY_SECRET" => secret.for_tasks },
    { for secret in module.gateway_secrets : "PSP_GATEWAY_SECRETS" => secret.for_tasks },
  )

  migration = {
    service_login = local.service_login
    database_id   = module.database.resource_id
    environment = {
      AWS_REGION        = var.region
      DATABASE_URL      = local.database_url[local.master_login]
      PSP_DATABASE_AUTH = "password"
      PSP_LOG_FORMAT    = "json"
    }
    secrets = {
      PSP_DATABASE_PASSWORD = {
        value_from = "${module.database.master_secret_arn}:password::"
        secret_arn = module.database.master_secret_arn
        key_arn    = module.database.key_arn
      }
    }
  }

  database_login = [{
    sid       = "LogInToDatabase"
    actions   = ["rds-db:connect"]
    resources = ["${local.arn_prefix}:rds-db:${var.region}:${local.account_id}:dbuser:${module.database.resource_id}/${local.service_login}"]
  }]

  queue_actions = [
    "sqs:ChangeMessageVisibility", "sqs:DeleteMessage", "sqs:GetQueueAttributes", "sqs:GetQueueUrl", "sqs:ReceiveMessage", "sqs:SendMessage",
  ]

  queue_key = {
    sid       = "EncryptMessages"
    actions   = ["kms:Decrypt", "kms:GenerateDataKey"]
    resources = [module.queues.key_arn]
  }

  worker_queues = [
    { sid = "UseQueues", actions = local.queue_actions, resources = values(module.queues.arns) },
    local.queue_key,
  ]

  # The job relays and settles chunks beside the workers. At its start it looks up every queue.
  settlement_queue = [
    { sid = "LookUpQueues", actions = ["sqs:GetQueueAttributes", "sqs:GetQueueUrl"], resources = values(module.queues.arns) },
    {
      sid       = "SettleChunks"
      actions   = local.queue_actions
      resources = [module.queues.arns["payables-settlement"], module.queues.arns["payables-settlement-dlq"]]
    },
    local.queue_key,
  ]
}
