mock_provider "aws" {
  source          = "./tests/mocks"
  override_during = plan
}

run "keys_rotate" {
  command = plan
  module {
    source = "./modules/key"
  }
  variables {
    name        = "psp-test"
    description = "Test"
  }

  assert {
    condition     = aws_kms_key.this.enable_key_rotation && aws_kms_key.this.deletion_window_in_days == 30
    error_message = "Keys rotate, and there are 30 days to regret a deletion."
  }
  assert {
    condition     = alltrue([for statement in jsondecode(aws_kms_key.this.policy).Statement : alltrue([for action in flatten([statement.Action]) : !strcontains(action, "*")])])
    error_message = "The policy of a key names its actions."
  }
}

run "services_are_confined" {
  command = plan
  module {
    source = "./modules/key"
  }
  variables {
    name        = "psp-test"
    description = "Test"
    services    = { Logs = { principal = "logs.amazonaws.com", condition = {} } }
  }
  expect_failures = [var.services]
}

run "secrets_are_written_and_not_kept" {
  command = plan
  module {
    source = "./modules/secret"
  }
  variables {
    name          = "psp-test/card-keys"
    description   = "Test"
    key_arn       = "arn:aws:kms:sa-east-1:123456789012:key/secrets"
    input         = "card_keys"
    value         = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
    value_version = 3
  }

  assert {
    condition     = aws_secretsmanager_secret.this.kms_key_id == var.key_arn && aws_secretsmanager_secret.this.recovery_window_in_days == 30
    error_message = "Secrets are encrypted with their own key and can be had back for 30 days."
  }
  assert {
    condition     = aws_secretsmanager_secret_version.this.secret_string == null && aws_secretsmanager_secret_version.this.secret_string_wo_version == 3
    error_message = "Values are written and never stored in the state."
  }
  assert {
    condition     = output.for_tasks.value_from == "arn:aws:secretsmanager:sa-east-1:123456789012:secret:card-keys:::version"
    error_message = "Tasks name the version, so that a new value replaces the tasks."
  }
}
