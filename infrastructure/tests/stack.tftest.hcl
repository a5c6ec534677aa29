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
    condition     = toset(keys(output.queue_urls)) == toset(["transactions", "transactions-dlq", "payables-settlement", "payables-settlement-dlq", "gateway-callbacks", "gateway-callbacks-dlq"])
    error_message = "The queues are those that psp uses, each with a dead-letter queue."
  }
  assert {
    condition     = strcontains(output.dashboard_url, "psp-dev")
    error_message = "The dashboard has an address."
  }
  assert {
    condition     = toset(keys(output.task_definitions)) == toset(["api", "worker", "migrate", "settle-payables", "purge-idempotency-keys", "shred-cards"])
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

run "api_and_worker_know_the_gateway_and_nobody_else" {
  command = plan

  assert {
    condition     = jsonencode(local.gateway_environment) == jsonencode({ PSP_GATEWAY_URL = "https://acquirer.example.com/v1" }) && keys(local.gateway_secrets) == ["PSP_GATEWAY_SECRET"]
    error_message = "The gateway's address and secret are what there is to know; it is asked, as nobody said where it could call back."
  }
  assert {
    condition     = alltrue([for variables in [module.api.variables, module.worker.variables] : contains(variables, "PSP_GATEWAY_URL") && contains(variables, "PSP_GATEWAY_SECRET")])
    error_message = "The API verifies callbacks, and the worker asks the gateway."
  }
  assert {
    condition     = alltrue([for name in keys(merge(local.environment, local.secrets, local.migration.environment, local.migration.secrets)) : !startswith(name, "PSP_GATEWAY")])
    error_message = "Jobs and the migration know nothing of gateways."
  }
}

run "gateways_of_the_database_have_secrets_of_their_own" {
  command = plan
  variables {
    gateway_secrets         = "lagos=0123456789abcdef0123456789abcdef,sao_paulo=0123456789abcdef0123456789abcdefabcdefabcdefab=="
    gateway_secrets_version = 1
  }

  assert {
    condition     = toset(keys(local.gateway_secrets)) == toset(["PSP_GATEWAY_SECRET", "PSP_GATEWAY_SECRETS"]) && output.secret_arns.gateways != null
    error_message = "They are a secret beside that of the gateway of the settings."
  }
  assert {
    condition     = contains(module.api.variables, "PSP_GATEWAY_SECRETS") && contains(module.worker.variables, "PSP_GATEWAY_SECRETS")
    error_message = "The API and the worker are given them."
  }
}

run "secrets_of_gateways_are_named_and_long" {
  command = plan
  variables {
    gateway_secrets         = "0123456789abcdef0123456789abcdef"
    gateway_secrets_version = 0
  }
  expect_failures = [var.gateway_secrets, var.gateway_secrets_version]
}

run "one_of_the_secrets_of_gateways_is_short" {
  command = plan
  variables {
    gateway_secrets         = "lagos=0123456789abcdef0123456789abcdef,nairobi=short"
    gateway_secrets_version = 1
  }
  expect_failures = [var.gateway_secrets]
}

run "a_gateway_with_two_secrets" {
  command = plan
  variables {
    gateway_secrets         = "lagos=0123456789abcdef0123456789abcdef,lagos=abcdef0123456789abcdef0123456789"
    gateway_secrets_version = 1
  }
  expect_failures = [var.gateway_secrets]
}

run "gateways_of_the_database_that_cannot_be_reached" {
  command = plan
  variables {
    gateway                 = null
    gateway_cidrs           = []
    gateway_secrets_version = 1
  }
  expect_failures = [var.gateway_secrets_version]
}

run "gateways_that_call_back_are_told_where" {
  command = plan
  variables {
    internal  = false
    callbacks = { host_name = "callbacks.psp.example.com", cidrs = ["198.51.100.0/24"] }
  }

  assert {
    condition     = local.gateway_environment["PSP_PUBLIC_URL"] == "https://callbacks.psp.example.com" && contains(module.api.variables, "PSP_PUBLIC_URL") && contains(module.worker.variables, "PSP_PUBLIC_URL")
    error_message = "The API and the worker know the public address."
  }
}

run "callbacks_have_a_name_of_their_own" {
  command = plan
  variables {
    callbacks = { host_name = "psp.example.com" }
  }
  expect_failures = [var.callbacks]
}

run "the_sandbox_would_believe_any_callback" {
  command = plan
  variables {
    gateway   = null
    callbacks = { host_name = "callbacks.psp.example.com" }
  }
  expect_failures = [var.callbacks]
}

run "ranges_and_certificate_of_callbacks" {
  command = plan
  variables {
    callbacks = { host_name = "callbacks.psp.example.com", cidrs = ["198.51.100.1"], certificate_arn = "callbacks.psp.example.com" }
  }
  expect_failures = [var.callbacks]
}

run "prod_charges_people" {
  command = plan
  variables {
    environment         = "prod"
    deletion_protection = true
    gateway             = null
  }
  expect_failures = [var.gateway]
}

run "a_gateway_that_cannot_be_reached" {
  command = plan
  variables {
    gateway_cidrs = []
  }
  expect_failures = [var.gateway]
}

run "a_gateway_without_tls" {
  command = plan
  variables {
    gateway = { url = "http://acquirer.example.com/v1" }
  }
  expect_failures = [var.gateway]
}

run "a_short_secret_of_the_gateway" {
  command = plan
  variables {
    gateway_secret = "short"
  }
  expect_failures = [var.gateway_secret]
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

run "schedules" {
  command = plan
  variables {
    settlement_schedule = "5 0 * * *"
    purge_schedule      = "hourly"
    shred_schedule      = "* * * * *"
  }
  expect_failures = [var.settlement_schedule, var.purge_schedule, var.shred_schedule]
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
