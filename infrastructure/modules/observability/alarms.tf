locals {
  edge     = { LoadBalancer = var.load_balancer_suffix }
  database = { DBInstanceIdentifier = var.database.identifier }

  # One metric, one threshold. Silence is good news for all of these.
  plain = merge(
    { for name, service in var.services : "${name}-cpu" => {
      text       = "The tasks of ${name} have used more than 85 % of their CPU for 10 minutes: autoscaling is at its limit or too slow."
      namespace  = "AWS/ECS", metric = "CPUUtilization", stat = "Average", threshold = 85, period = 60, periods = 10
      dimensions = { ClusterName = var.cluster_name, ServiceName = service.name }
    } },
    { for name, service in var.services : "${name}-memory" => {
      text       = "The tasks of ${name} have used more than 85 % of their memory for 10 minutes."
      namespace  = "AWS/ECS", metric = "MemoryUtilization", stat = "Average", threshold = 85, period = 60, periods = 10
      dimensions = { ClusterName = var.cluster_name, ServiceName = service.name }
    } },
    { for name in keys(var.log_group_names) : "${name}-errors" => {
      text       = "${name} logs errors."
      namespace  = local.log_namespace, metric = "${name}-errors", stat = "Sum", threshold = 5, period = 300, periods = 1
      dimensions = {}
    } },
    { for name, alarm in local.worker_alarms : name => {
      text       = "${alarm.text} docs/operations.md says what to do."
      namespace  = local.log_namespace, metric = name, stat = "Sum", threshold = 0, period = alarm.seconds, periods = 1
      dimensions = {}
    } },
    { for name, queue in var.queue_names : "${name}-age" => {
      text       = "A message has waited for more than ${var.queue_age_seconds} s on ${queue}: the workers do not keep up."
      namespace  = "AWS/SQS", metric = "ApproximateAgeOfOldestMessage", stat = "Maximum", threshold = var.queue_age_seconds, period = 60, periods = 5
      dimensions = { QueueName = queue }
    } },
    { for name, queue in var.dead_letter_queue_names : "${name}-depth" => {
      text       = "${queue} is not empty: something needs a person (psp dlq list)."
      namespace  = "AWS/SQS", metric = "ApproximateNumberOfMessagesVisible", stat = "Maximum", threshold = 0, period = 60, periods = 1
      dimensions = { QueueName = queue }
    } },
    {
      api-5xx = {
        text       = "The API answers with 5xx."
        namespace  = "AWS/ApplicationELB", metric = "HTTPCode_Target_5XX_Count", stat = "Sum", threshold = 10, period = 60, periods = 3
        dimensions = local.edge
      }
      edge-5xx = {
        text       = "The load balancer itself answers with 5xx: no task is healthy, or tasks break connections."
        namespace  = "AWS/ApplicationELB", metric = "HTTPCode_ELB_5XX_Count", stat = "Sum", threshold = 10, period = 60, periods = 3
        dimensions = local.edge
      }
      edge-blocked = {
        text       = "The firewall refuses requests: an attack, or payments that look like one."
        namespace  = "AWS/WAFV2", metric = "BlockedRequests", stat = "Sum", threshold = 100, period = 300, periods = 1
        dimensions = { WebACL = var.name, Region = var.region, Rule = "ALL" }
      }
      api-p95 = {
        text       = "One request in 20 takes longer than ${var.p95_seconds} s."
        namespace  = "AWS/ApplicationELB", metric = "TargetResponseTime", stat = "p95", threshold = var.p95_seconds, period = 60, periods = 5
        dimensions = local.edge
      }
      database-cpu = {
        text       = "The database has used more than 80 % of its CPU for 15 minutes."
        namespace  = "AWS/RDS", metric = "CPUUtilization", stat = "Average", threshold = 80, period = 60, periods = 15
        dimensions = local.database
      }
      database-connections = {
        text       = "More than 80 % of the database's connections are taken."
        namespace  = "AWS/RDS", metric = "DatabaseConnections", stat = "Maximum", threshold = floor(var.database.max_connections * 0.8), period = 60, periods = 5
        dimensions = local.database
      }
    },
  )
}

resource "aws_cloudwatch_metric_alarm" "plain" {
  for_each            = local.plain
  alarm_name          = "${var.name}-${each.key}"
  alarm_description   = each.value.text
  namespace           = each.value.namespace
  metric_name         = each.value.metric
  dimensions          = each.value.dimensions
  statistic           = startswith(each.value.stat, "p") ? null : each.value.stat
  extended_statistic  = startswith(each.value.stat, "p") ? each.value.stat : null
  comparison_operator = "GreaterThanThreshold"
  threshold           = each.value.threshold
  period              = each.value.period
  evaluation_periods  = each.value.periods
  treat_missing_data  = "notBreaching"
  alarm_actions       = [aws_sns_topic.alarms.arn]
  ok_actions          = [aws_sns_topic.alarms.arn]
}

resource "aws_cloudwatch_metric_alarm" "database_storage" {
  alarm_name          = "${var.name}-database-storage"
  alarm_description   = "Less than ${var.database.free_storage_gib} GiB of the database's storage are free, although it grows by itself."
  namespace           = "AWS/RDS"
  metric_name         = "FreeStorageSpace"
  dimensions          = local.database
  statistic           = "Minimum"
  comparison_operator = "LessThanThreshold"
  threshold           = var.database.free_storage_gib * 1024 * 1024 * 1024
  period              = 300
  evaluation_periods  = 2
  treat_missing_data  = "missing"
  alarm_actions       = [aws_sns_topic.alarms.arn]
  ok_actions          = [aws_sns_topic.alarms.arn]
}

resource "aws_cloudwatch_metric_alarm" "success_rate" {
  alarm_name          = "${var.name}-success-rate"
  alarm_description   = "Fewer than ${var.success_percent} % of the requests are answered without 5xx."
  comparison_operator = "LessThanThreshold"
  threshold           = var.success_percent
  evaluation_periods  = 5
  datapoints_to_alarm = 3
  treat_missing_data  = "notBreaching"
  alarm_actions       = [aws_sns_topic.alarms.arn]
  ok_actions          = [aws_sns_topic.alarms.arn]

  metric_query {
    id    = "rate"
    label = "Success rate in percent"
    # Requests that found no task are counted as errors of the edge only.
    expression  = "100 * (1 - (FILL(tasks, 0) + FILL(edge, 0)) / (FILL(requests, 0) + FILL(edge, 0)))"
    return_data = true
  }

  dynamic "metric_query" {
    for_each = { requests = "RequestCount", tasks = "HTTPCode_Target_5XX_Count", edge = "HTTPCode_ELB_5XX_Count" }
    content {
      id = metric_query.key
      metric {
        namespace   = "AWS/ApplicationELB"
        metric_name = metric_query.value
        dimensions  = local.edge
        stat        = "Sum"
        period      = 60
      }
    }
  }
}

resource "aws_cloudwatch_metric_alarm" "tasks" {
  for_each            = var.services
  alarm_name          = "${var.name}-${each.key}-tasks"
  alarm_description   = "Fewer tasks of ${each.key} run than should, for 10 minutes."
  comparison_operator = "GreaterThanThreshold"
  threshold           = 0
  evaluation_periods  = 10
  treat_missing_data  = "breaching"
  alarm_actions       = [aws_sns_topic.alarms.arn]
  ok_actions          = [aws_sns_topic.alarms.arn]

  metric_query {
    id          = "missing"
    label       = "Missing tasks"
    expression  = "desired - running"
    return_data = true
  }

  dynamic "metric_query" {
    for_each = { desired = "DesiredTaskCount", running = "RunningTaskCount" }
    content {
      id = metric_query.key
      metric {
        namespace   = "ECS/ContainerInsights"
        metric_name = metric_query.value
        dimensions  = { ClusterName = var.cluster_name, ServiceName = each.value.name }
        stat        = "Average"
        period      = 60
      }
    }
  }
}

# One state for a page or a status board.
resource "aws_cloudwatch_composite_alarm" "payments" {
  count             = var.composite_alarms ? 1 : 0
  alarm_name        = "${var.name}-payments"
  alarm_description = "Payments are not taken, not processed or not settled."
  alarm_actions     = [aws_sns_topic.alarms.arn]
  ok_actions        = [aws_sns_topic.alarms.arn]
  alarm_rule = join(" OR ", [for name in concat(
    [aws_cloudwatch_metric_alarm.success_rate.alarm_name, aws_cloudwatch_metric_alarm.settlement_missing.alarm_name],
    [aws_cloudwatch_metric_alarm.plain["edge-5xx"].alarm_name],
    [for queue in keys(var.queue_names) : aws_cloudwatch_metric_alarm.plain["${queue}-age"].alarm_name],
    [for alarm in aws_cloudwatch_metric_alarm.tasks : alarm.alarm_name],
  ) : "ALARM(\"${name}\")"])
}
