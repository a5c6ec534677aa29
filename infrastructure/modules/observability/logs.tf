locals {
  log_namespace = "psp/${var.name}"
  # The summary that a settlement run logs at its end.
  settled_pattern = "{ $.message = \"payables settled\" }"

  # What the worker logs where money needs a person. Its metrics do not reach CloudWatch, its log does.
  worker_alarms = {
    callbacks-flagged = {
      pattern = "{ $.message = \"a callback needs a look\" }"
      text    = "A gateway called back with another amount than was asked for, or about a charge that is not the transaction's: nothing was changed."
      seconds = 300
    }
    # Told for each time that the gateway is asked in vain, an hour apart at the most: without a gap, the alarm stays.
    voiding-failed = {
      pattern = "{ $.message = \"waits for its gateway\" && $.reason = \"*voiding failed*\" }"
      text    = "A gateway may have charged and cannot be told to give it back: it is asked again until it answers."
      seconds = 7200
    }
    # Told at every tenth sweep, which is ten minutes apart by default.
    attempts-overdue = {
      pattern = "{ $.message = \"attempts are overdue\" || $.message = \"refunds are overdue\" }"
      text    = "Gateways may have charged, or are to give back, and have not said so for a quarter of an hour, or a day."
      seconds = 3600
    }
    breaker-open = {
      pattern = "{ $.message = \"the breaker is open*\" }"
      text    = "A gateway fails again and again and is left alone: payments go to others, or wait."
      seconds = 300
    }
  }
}

resource "aws_cloudwatch_log_metric_filter" "errors" {
  for_each       = var.log_group_names
  name           = "${each.key}-errors"
  log_group_name = each.value
  pattern        = "{ $.level = \"ERROR\" }"

  metric_transformation {
    namespace     = local.log_namespace
    name          = "${each.key}-errors"
    value         = "1"
    default_value = "0"
    unit          = "Count"
  }
}

resource "aws_cloudwatch_log_metric_filter" "settled" {
  name           = "settlement-runs"
  log_group_name = var.log_group_names["settle-payables"]
  pattern        = local.settled_pattern

  metric_transformation {
    namespace = local.log_namespace
    name      = "settlement-runs"
    value     = "1"
    unit      = "Count"
  }
}

resource "aws_cloudwatch_log_metric_filter" "worker" {
  for_each       = local.worker_alarms
  name           = each.key
  log_group_name = var.log_group_names["worker"]
  pattern        = each.value.pattern

  metric_transformation {
    namespace     = local.log_namespace
    name          = each.key
    value         = "1"
    default_value = "0"
    unit          = "Count"
  }
}

# Hours without a run have no data, so every hour breaches until one has a run.
resource "aws_cloudwatch_metric_alarm" "settlement_missing" {
  alarm_name          = "${var.name}-settlement-missing"
  alarm_description   = "No settlement run has ended well for ${var.settlement_overdue_hours} hours: due payables wait. Run psp job settle-payables; settling twice pays once."
  namespace           = local.log_namespace
  metric_name         = "settlement-runs"
  statistic           = "Sum"
  comparison_operator = "LessThanThreshold"
  threshold           = 1
  period              = 3600
  evaluation_periods  = var.settlement_overdue_hours
  datapoints_to_alarm = var.settlement_overdue_hours
  treat_missing_data  = "breaching"
  alarm_actions       = [aws_sns_topic.alarms.arn]
  ok_actions          = [aws_sns_topic.alarms.arn]
}

# A job that ended badly, or whose task did not come up.
resource "aws_cloudwatch_event_rule" "job_failed" {
  name        = "${var.name}-job-failed"
  description = "A scheduled job ended with an exit code other than 0, or its task did not start"
  event_pattern = jsonencode({
    source      = ["aws.ecs"]
    detail-type = ["ECS Task State Change"]
    detail = {
      clusterArn = [var.cluster_arn]
      lastStatus = ["STOPPED"]
      group      = [for family in var.job_families : "family:${family}"]
      "$or" = [
        { containers = { exitCode = [{ anything-but = [0] }] } },
        { stopCode = ["TaskFailedToStart"] },
      ]
    }
  })
}

resource "aws_cloudwatch_event_target" "job_failed" {
  rule = aws_cloudwatch_event_rule.job_failed.name
  arn  = aws_sns_topic.alarms.arn
}
