mock_provider "aws" {
  source          = "./tests/mocks"
  override_during = plan
}

variables {
  prefix               = "psp-test-"
  redrive_allow_policy = true
  queues = {
    transactions        = {}
    payables-settlement = {}
    gateway-callbacks   = {}
    refunds             = {}
    orders              = {}
  }
}

run "every_queue_has_a_dead_letter_queue" {
  command = plan
  module {
    source = "./modules/queues"
  }

  assert {
    condition     = toset(keys(aws_sqs_queue.this)) == toset(keys(var.queues)) && toset(keys(aws_sqs_queue.dead)) == toset(keys(var.queues))
    error_message = "There is a queue and a dead-letter queue for each name."
  }
  assert {
    condition     = alltrue([for name, queue in aws_sqs_queue.dead : queue.name == "psp-test-${name}-dlq"]) && alltrue([for name, queue in aws_sqs_queue.this : queue.name == "psp-test-${name}"])
    error_message = "psp finds queues by prefix, name and -dlq."
  }
  assert {
    condition     = alltrue([for queue in aws_sqs_queue.this : jsondecode(queue.redrive_policy).maxReceiveCount == 5 && jsondecode(queue.redrive_policy).deadLetterTargetArn != ""])
    error_message = "A message is put aside after 5 receives."
  }
  assert {
    condition     = alltrue([for queue in aws_sqs_queue.dead : queue.message_retention_seconds == 1209600])
    error_message = "Dead letters are kept for 14 days, the most that SQS has."
  }
  assert {
    condition     = toset(keys(aws_sqs_queue_redrive_allow_policy.dead)) == toset(keys(var.queues))
    error_message = "A dead-letter queue takes messages of its own queue only."
  }
}

run "encrypted_and_tls_only" {
  command = plan
  module {
    source = "./modules/queues"
  }

  assert {
    condition     = alltrue([for queue in concat(values(aws_sqs_queue.this), values(aws_sqs_queue.dead)) : queue.kms_master_key_id == module.key.arn])
    error_message = "All messages are encrypted with the queues' own key."
  }
  assert {
    condition     = length(aws_sqs_queue_policy.tls_only) == 2 * length(var.queues)
    error_message = "Every queue and dead-letter queue has a policy."
  }
  assert {
    condition = alltrue([for policy in aws_sqs_queue_policy.tls_only : anytrue([for statement in jsondecode(policy.policy).Statement :
      statement.Effect == "Deny" && statement.Condition.Bool["aws:SecureTransport"] == "false" && statement.Principal == "*"
    ])])
    error_message = "Nothing gets to a queue without TLS."
  }
}

run "long_polling" {
  command = plan
  module {
    source = "./modules/queues"
  }

  assert {
    condition     = alltrue([for queue in aws_sqs_queue.this : queue.receive_wait_time_seconds == 20 && queue.visibility_timeout_seconds == 30])
    error_message = "Receiving waits for 20 s, and a message stays with its worker for 30 s."
  }
}

run "without_redrive_allow_policy" {
  command = plan
  module {
    source = "./modules/queues"
  }
  variables {
    redrive_allow_policy = false
  }

  assert {
    condition     = length(aws_sqs_queue_redrive_allow_policy.dead) == 0
    error_message = "The switch for emulators works."
  }
}
