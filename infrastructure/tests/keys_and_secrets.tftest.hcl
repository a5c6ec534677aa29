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

run "card_keys" {
  command = plan
  module {
    source = "./modules/secrets"
  }
  variables {
    name              = "psp-test"
    card_keys         = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
    card_keys_version = 3
  }

  assert {
    condition     = aws_secretsmanager_secret.card_keys.kms_key_id == module.key.arn && aws_secretsmanager_secret.card_keys.recovery_window_in_days == 30
    error_message = "Card keys are encrypted with their own key and can be had back for 30 days."
  }
  assert {
    condition     = aws_secretsmanager_secret_version.card_keys.secret_string == null && aws_secretsmanager_secret_version.card_keys.secret_string_wo_version == 3
    error_message = "Card keys are written and never stored in the state."
  }
  assert {
    condition     = output.card_keys_value_from == "arn:aws:secretsmanager:sa-east-1:123456789012:secret:card-keys:::version"
    error_message = "Tasks name the version, so that new keys replace the tasks."
  }
}
