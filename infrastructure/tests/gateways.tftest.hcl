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
    webhooks                = false
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
    webhooks      = false
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
