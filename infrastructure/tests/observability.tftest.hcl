mock_provider "aws" {
  source          = "./tests/mocks"
  override_during = plan
}

variables {
  name                     = "psp-test"
  region                   = "sa-east-1"
  key_arn                  = "arn:aws:kms:sa-east-1:123456789012:key/logs"
  emails                   = ["oncall@example.com"]
  cluster_arn              = "arn:aws:ecs:sa-east-1:123456789012:cluster/psp-test"
  cluster_name             = "psp-test"
  services                 = { api = { name = "psp-test-api" }, worker = { name = "psp-test-worker" } }
  log_group_names          = { api = "/psp-test-api", worker = "/psp-test-worker", settle-payables = "/psp-test-settle-payables" }
  job_families             = ["psp-test-settle-payables"]
  load_balancer_suffix     = "app/psp/1"
  target_group_suffix      = "targetgroup/psp/1"
  queue_names              = { transactions = "psp-test-transactions" }
  dead_letter_queue_names  = { transactions-dlq = "psp-test-transactions-dlq" }
  database                 = { identifier = "psp-test", max_connections = 200, free_storage_gib = 2 }
  queue_age_seconds        = 300
  p95_seconds              = 0.5
  success_percent          = 99.5
  settlement_overdue_hours = 26
  composite_alarms         = true
}

run "every_alarm_that_was_promised" {
  command = plan
  module {
    source = "./modules/observability"
  }

  assert {
    condition = length(setsubtract([
      "callbacks-flagged", "voiding-failed", "attempts-overdue", "breaker-open", "api-cpu", "api-memory", "worker-cpu", "worker-memory", "api-errors", "worker-errors", "settle-payables-errors", "api-5xx", "edge-5xx",
      "api-p95", "transactions-age", "transactions-dlq-depth", "database-cpu", "database-connections",
    ], keys(aws_cloudwatch_metric_alarm.plain))) == 0
    error_message = "An alarm is missing."
  }
  assert {
    condition     = toset(keys(aws_cloudwatch_metric_alarm.tasks)) == toset(["api", "worker"])
    error_message = "Each service has an alarm on missing tasks."
  }
  assert {
    condition = alltrue([for alarm in concat(values(aws_cloudwatch_metric_alarm.plain), values(aws_cloudwatch_metric_alarm.tasks), [
      aws_cloudwatch_metric_alarm.database_storage, aws_cloudwatch_metric_alarm.success_rate, aws_cloudwatch_metric_alarm.settlement_missing,
    ]) : alarm.alarm_actions == toset([aws_sns_topic.alarms.arn])])
    error_message = "All alarms go to the topic."
  }
  assert {
    condition     = aws_sns_topic.alarms.kms_master_key_id == var.key_arn && length(aws_sns_topic_subscription.email) == 1
    error_message = "The topic is encrypted, and the addresses get it."
  }
}

run "one_dead_letter_is_enough" {
  command = plan
  module {
    source = "./modules/observability"
  }

  assert {
    condition     = aws_cloudwatch_metric_alarm.plain["transactions-dlq-depth"].threshold == 0 && aws_cloudwatch_metric_alarm.plain["transactions-dlq-depth"].comparison_operator == "GreaterThanThreshold"
    error_message = "One dead letter is an alarm."
  }
}

run "money_in_doubt_is_told_from_the_log_of_the_worker" {
  command = plan
  module {
    source = "./modules/observability"
  }

  assert {
    condition = alltrue([for name in ["callbacks-flagged", "voiding-failed", "attempts-overdue", "breaker-open"] : (
      aws_cloudwatch_log_metric_filter.worker[name].log_group_name == "/psp-test-worker" &&
      aws_cloudwatch_log_metric_filter.worker[name].metric_transformation[0].name == aws_cloudwatch_metric_alarm.plain[name].metric_name &&
      aws_cloudwatch_log_metric_filter.worker[name].metric_transformation[0].namespace == aws_cloudwatch_metric_alarm.plain[name].namespace &&
      aws_cloudwatch_metric_alarm.plain[name].threshold == 0 && aws_cloudwatch_metric_alarm.plain[name].comparison_operator == "GreaterThanThreshold"
    )])
    error_message = "One line in the log is an alarm."
  }
  assert {
    condition     = aws_cloudwatch_metric_alarm.plain["voiding-failed"].period > 3600
    error_message = "A gateway is asked again within an hour: until it answers, the alarm stays."
  }
  assert {
    condition     = strcontains(aws_cloudwatch_dashboard.this.dashboard_body, "voiding-failed")
    error_message = "The dashboard shows it."
  }
}

run "settlement_failed_or_missing" {
  command = plan
  module {
    source = "./modules/observability"
  }

  assert {
    condition     = aws_cloudwatch_metric_alarm.settlement_missing.treat_missing_data == "breaching" && aws_cloudwatch_metric_alarm.settlement_missing.period * aws_cloudwatch_metric_alarm.settlement_missing.evaluation_periods > 86400
    error_message = "More than a day without a run is an alarm."
  }
  assert {
    condition     = jsondecode(aws_cloudwatch_event_rule.job_failed.event_pattern).detail.group == ["family:psp-test-settle-payables"] && aws_cloudwatch_event_target.job_failed.arn == aws_sns_topic.alarms.arn
    error_message = "A job that fails is told to the topic."
  }
}

run "composite_alarm" {
  command = plan
  module {
    source = "./modules/observability"
  }

  assert {
    condition     = strcontains(aws_cloudwatch_composite_alarm.payments[0].alarm_rule, "ALARM(\"psp-test-settlement-missing\")")
    error_message = "The alarm that sums up the others knows settlement."
  }
}

run "emulators_have_no_composite_alarm" {
  command = plan
  module {
    source = "./modules/observability"
  }
  variables {
    composite_alarms = false
  }

  assert {
    condition     = length(aws_cloudwatch_composite_alarm.payments) == 0
    error_message = "The switch for emulators works."
  }
}

run "a_day_is_too_short" {
  command = plan
  module {
    source = "./modules/observability"
  }
  variables {
    settlement_overdue_hours = 24
  }
  expect_failures = [var.settlement_overdue_hours]
}
