# The root stack: what its modules are given, and what its inputs refuse.
mock_provider "aws" {
  source          = "./tests/mocks"
  override_during = plan
}

variables {
  environment   = "dev"
  region        = "sa-east-1"
  image         = "123456789012.dkr.ecr.sa-east-1.amazonaws.com/psp:1.0.0"
  card_keys     = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
  domain_name   = "psp.example.com"
  zone_id       = "Z0123456789ABCDEFGHIJ"
  allowed_cidrs = ["10.0.0.0/8"]
  vpc_cidr      = "10.20.0.0/16"
  zones         = ["sa-east-1a", "sa-east-1b"]
  database = {
    engine_version            = "16"
    instance_class            = "db.t4g.small"
    allocated_storage_gib     = 20
    max_allocated_storage_gib = 50
    max_connections           = 200
    multi_az                  = true
    backup_retention_days     = 7
  }
  gateway        = { url = "https://acquirer.example.com/v1" }
  gateway_cidrs  = ["192.0.2.0/24"]
  gateway_secret = "0123456789abcdef0123456789abcdef"

  api    = { cpu = 256, memory_mib = 512, min_tasks = 2, max_tasks = 2 }
  worker = { cpu = 256, memory_mib = 512, min_tasks = 2, max_tasks = 2 }
}

run "outputs" {
  command = plan

  assert {
    condition     = output.url == "https://psp.example.com"
    error_message = "The address is the host name with HTTPS."
  }
  assert {
    condition     = toset(keys(output.queue_urls)) == toset(["transactions", "transactions-dlq", "payables-settlement", "payables-settlement-dlq", "gateway-callbacks", "gateway-callbacks-dlq", "refunds", "refunds-dlq", "orders", "orders-dlq"])
    error_message = "The queues are those that psp uses, each with a dead-letter queue."
  }
  assert {
    condition     = strcontains(output.dashboard_url, "psp-dev")
    error_message = "The dashboard has an address."
  }
  assert {
    condition     = toset(keys(output.task_definitions)) == toset(["api", "worker", "migrate", "settle-payables", "purge-idempotency-keys", "shred-cards", "purge-events"])
    error_message = "There is a task definition for each role and job."
  }
}

run "services_log_in_without_password" {
  command = plan

  assert {
    condition     = local.environment.PSP_DATABASE_AUTH == "rds_iam" && keys(local.secrets) == ["PSP_CARD_KEYS"]
    error_message = "Services and jobs log in with IAM, and the card keys are their only secret."
  }
  assert {
    condition     = strcontains(local.environment.DATABASE_URL, "sslmode=verify-full") && strcontains(local.migration.environment.DATABASE_URL, "sslmode=verify-full")
    error_message = "Connections verify the certificate and the name of the server."
  }
  assert {
    condition     = !strcontains(jsonencode(local.secrets), "master") && keys(local.migration.secrets) == ["PSP_DATABASE_PASSWORD"]
    error_message = "Only the migration knows the master password."
  }
  assert {
    condition     = local.database_login[0].resources == ["arn:aws:rds-db:sa-east-1:123456789012:dbuser:db-MOCK/psp"]
    error_message = "Tasks log in to this database, as psp."
  }
}

run "without_kms_the_card_keys_are_a_secret" {
  command = plan

  assert {
    condition     = length(module.card_keys) == 1 && length(module.card_master_key) == 0 && local.card_environment == {} && length(local.card_key_use) == 0
    error_message = "Card keys are in Secrets Manager, and nobody may use a key in KMS for them."
  }
}

run "in_kms_the_card_key_is_used_by_api_and_worker_in_its_context" {
  command = plan
  variables {
    card_key_in_kms = true
    card_keys       = null
  }

  assert {
    condition     = length(module.card_keys) == 0 && keys(local.card_environment) == ["PSP_CARD_KMS_KEY"] && length(local.secrets) == 0 && output.secret_arns.card_keys == null
    error_message = "The key is named to the tasks, and there is no secret with keys."
  }
  assert {
    condition     = toset(local.card_key_use[0].actions) == toset(["kms:Decrypt", "kms:GenerateDataKey"]) && local.card_key_use[0].resources == [module.card_master_key[0].arn]
    error_message = "Tasks make and open data keys with this key, and do nothing else with it."
  }
  assert {
    condition     = local.card_key_use[0].condition == { StringEquals = { "kms:EncryptionContext:psp-purpose" = "card-vault" } }
    error_message = "Tasks use the key in the encryption context of cards only."
  }
}

run "the_api_never_talks_to_sqs" {
  command = plan

  assert {
    condition     = alltrue([for statement in local.database_login : alltrue([for action in statement.actions : !startswith(action, "sqs:")])])
    error_message = "What the API may do has no SQS in it."
  }
  assert {
    condition     = alltrue([for statement in concat(local.worker_queues, local.settlement_queue) : !contains(statement.resources, "*")])
    error_message = "The worker and the settlement use the queues that are named."
  }
}

run "prod_needs_a_standby" {
  command = plan
  variables {
    environment = "prod"
    database = {
      engine_version  = "16", instance_class = "db.m7g.large", allocated_storage_gib = 100, max_allocated_storage_gib = 200
      max_connections = 200, multi_az = false, backup_retention_days = 7
    }
  }
  expect_failures = [var.database]
}

run "prod_keeps_backups_for_a_week" {
  command = plan
  variables {
    environment = "prod"
    database = {
      engine_version  = "16", instance_class = "db.m7g.large", allocated_storage_gib = 100, max_allocated_storage_gib = 200
      max_connections = 200, multi_az = true, backup_retention_days = 6
    }
  }
  expect_failures = [var.database]
}

run "too_few_connections" {
  command = plan
  variables {
    api = { cpu = 256, memory_mib = 512, min_tasks = 2, max_tasks = 20 }
  }
  expect_failures = [var.database]
}

run "untested_postgres" {
  command = plan
  variables {
    database = {
      engine_version  = "13", instance_class = "db.t4g.small", allocated_storage_gib = 20, max_allocated_storage_gib = 50
      max_connections = 200, multi_az = true, backup_retention_days = 7
    }
  }
  expect_failures = [var.database]
}

run "instance_class" {
  command = plan
  variables {
    database = {
      engine_version  = "16", instance_class = "t4g.small", allocated_storage_gib = 20, max_allocated_storage_gib = 50
      max_connections = 200, multi_az = true, backup_retention_days = 7
    }
  }
  expect_failures = [var.database]
}

run "storage_is_too_small" {
  command = plan
  variables {
    database = {
      engine_version  = "16", instance_class = "db.t4g.small", allocated_storage_gib = 10, max_allocated_storage_gib = 50
      max_connections = 200, multi_az = true, backup_retention_days = 7
    }
  }
  expect_failures = [var.database]
}

run "prod_is_protected" {
  command = plan
  variables {
    environment         = "prod"
    deletion_protection = false
  }
  expect_failures = [var.deletion_protection]
}

run "prod_is_no_emulator" {
  command = plan
  variables {
    environment = "prod"
    emulator    = true
  }
  expect_failures = [var.emulator]
}

run "prod_has_two_tasks_of_each" {
  command = plan
  variables {
    environment = "prod"
    api         = { cpu = 256, memory_mib = 512, min_tasks = 1, max_tasks = 2 }
    worker      = { cpu = 256, memory_mib = 512, min_tasks = 1, max_tasks = 2 }
  }
  expect_failures = [var.api, var.worker]
}

run "autoscaling_targets" {
  command = plan
  variables {
    api    = { cpu = 256, memory_mib = 512, min_tasks = 1, max_tasks = 2, cpu_percent = 100 }
    worker = { cpu = 256, memory_mib = 512, min_tasks = 1, max_tasks = 2, backlog_per_task = 0 }
  }
  expect_failures = [var.api, var.worker]
}

run "environment_is_a_plain_name" {
  command = plan
  variables {
    environment = "Dev_1"
  }
  expect_failures = [var.environment]
}

run "region_looks_like_one" {
  command = plan
  variables {
    region = "Brazil"
  }
  expect_failures = [var.region]
}

run "latest_is_no_version" {
  command = plan
  variables {
    image = "123456789012.dkr.ecr.sa-east-1.amazonaws.com/psp:latest"
  }
  expect_failures = [var.image]
}

run "card_key_of_16_bytes" {
  command = plan
  variables {
    card_keys = "AAAAAAAAAAAAAAAAAAAAAA=="
  }
  expect_failures = [var.card_keys]
}

run "second_card_key_is_cut_off" {
  command = plan
  variables {
    card_keys = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=,AAAA"
  }
  expect_failures = [var.card_keys]
}

run "card_keys_version" {
  command = plan
  variables {
    card_keys_version = 0
  }
  expect_failures = [var.card_keys_version]
}

run "nobody_is_not_allowed" {
  command = plan
  variables {
    allowed_cidrs = []
  }
  expect_failures = [var.allowed_cidrs]
}

run "cidr_notation" {
  command = plan
  variables {
    allowed_cidrs = ["10.0.0.1-10.0.0.9"]
    vpc_cidr      = "10.0.0.0/28"
    gateway_cidrs = ["0.0.0.0/0"]
  }
  expect_failures = [var.allowed_cidrs, var.vpc_cidr, var.gateway_cidrs]
}

run "one_zone" {
  command = plan
  variables {
    zones = ["sa-east-1a"]
  }
  expect_failures = [var.zones]
}

run "zone_of_another_region" {
  command = plan
  variables {
    zones = ["sa-east-1a", "us-east-1a"]
  }
  expect_failures = [var.zones]
}

run "neither_dns_nor_certificate" {
  command = plan
  variables {
    zone_id = null
  }
  expect_failures = [var.zone_id]
}

run "certificate_is_an_arn" {
  command = plan
  variables {
    certificate_arn = "psp.example.com"
  }
  expect_failures = [var.certificate_arn]
}

run "domain_name" {
  command = plan
  variables {
    domain_name = "https://psp.example.com"
  }
  expect_failures = [var.domain_name]
}

run "limits" {
  command = plan
  variables {
    rate_limit           = 5
    database_connections = 2
    log_retention_days   = 1
  }
  expect_failures = [var.rate_limit, var.database_connections, var.log_retention_days]
}

run "webhooks_are_delivered_unless_turned_off" {
  command = plan
  variables {
    webhooks = false
  }

  assert {
    condition     = local.environment.PSP_WEBHOOK_REACH == "none" && contains(module.worker.variables, "PSP_WEBHOOK_REACH") && contains(module.api.variables, "PSP_WEBHOOK_REACH")
    error_message = "Where the worker may not connect to endpoints, API and worker know it."
  }
}

run "limits_of_events_and_refunds" {
  command = plan
  variables {
    event_retention_days = 6
    refund_fee           = "half"
  }
  expect_failures = [var.event_retention_days, var.refund_fee]
}

run "schedules" {
  command = plan
  variables {
    settlement_schedule  = "5 0 * * *"
    purge_schedule       = "hourly"
    shred_schedule       = "* * * * *"
    event_purge_schedule = "daily"
  }
  expect_failures = [var.settlement_schedule, var.purge_schedule, var.shred_schedule, var.event_purge_schedule]
}

run "alarms" {
  command = plan
  variables {
    alarm_emails = ["oncall"]
    alarms       = { settlement_overdue_hours = 12 }
  }
  expect_failures = [var.alarm_emails, var.alarms]
}

run "limits_of_alarms" {
  command = plan
  variables {
    alarms = { success_percent = 120 }
  }
  expect_failures = [var.alarms]
}
