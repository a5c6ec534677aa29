locals {
  graphs = [
    { title = "Requests and errors per minute", stat = "Sum", metrics = [
      ["AWS/ApplicationELB", "RequestCount", "LoadBalancer", var.load_balancer_suffix],
      [".", "HTTPCode_Target_4XX_Count", ".", "."],
      [".", "HTTPCode_Target_5XX_Count", ".", "."],
      [".", "HTTPCode_ELB_5XX_Count", ".", "."],
    ] },
    { title = "Latency in seconds (p95)", stat = "p95", metrics = [
      ["AWS/ApplicationELB", "TargetResponseTime", "LoadBalancer", var.load_balancer_suffix],
    ] },
    { title = "Healthy targets", stat = "Minimum", metrics = [
      ["AWS/ApplicationELB", "HealthyHostCount", "TargetGroup", var.target_group_suffix, "LoadBalancer", var.load_balancer_suffix],
    ] },
    { title = "CPU in percent", stat = "Average", metrics = [for service in var.services :
      ["AWS/ECS", "CPUUtilization", "ClusterName", var.cluster_name, "ServiceName", service.name]
    ] },
    { title = "Memory in percent", stat = "Average", metrics = [for service in var.services :
      ["AWS/ECS", "MemoryUtilization", "ClusterName", var.cluster_name, "ServiceName", service.name]
    ] },
    { title = "Running tasks", stat = "Average", metrics = [for service in var.services :
      ["ECS/ContainerInsights", "RunningTaskCount", "ClusterName", var.cluster_name, "ServiceName", service.name]
    ] },
    { title = "Messages that wait", stat = "Maximum", metrics = [for queue in var.queue_names :
      ["AWS/SQS", "ApproximateNumberOfMessagesVisible", "QueueName", queue]
    ] },
    { title = "Age of the oldest message in seconds", stat = "Maximum", metrics = [for queue in var.queue_names :
      ["AWS/SQS", "ApproximateAgeOfOldestMessage", "QueueName", queue]
    ] },
    { title = "Dead letters", stat = "Maximum", metrics = [for queue in var.dead_letter_queue_names :
      ["AWS/SQS", "ApproximateNumberOfMessagesVisible", "QueueName", queue]
    ] },
    { title = "Gateways: what needs a person", stat = "Sum", metrics = [for name in keys(local.worker_alarms) :
      [local.log_namespace, name]
    ] },
    { title = "Database: CPU in percent", stat = "Average", metrics = [
      ["AWS/RDS", "CPUUtilization", "DBInstanceIdentifier", var.database.identifier],
    ] },
    { title = "Database: connections", stat = "Maximum", metrics = [
      ["AWS/RDS", "DatabaseConnections", "DBInstanceIdentifier", var.database.identifier],
    ] },
    { title = "Database: free storage in bytes", stat = "Minimum", metrics = [
      ["AWS/RDS", "FreeStorageSpace", "DBInstanceIdentifier", var.database.identifier],
    ] },
  ]
}

resource "aws_cloudwatch_dashboard" "this" {
  dashboard_name = var.name
  dashboard_body = jsonencode({
    widgets = [for i, graph in local.graphs : {
      type   = "metric"
      x      = i % 3 * 8
      y      = floor(i / 3) * 6
      width  = 8
      height = 6
      properties = {
        title   = graph.title
        region  = var.region
        stat    = graph.stat
        period  = 60
        view    = "timeSeries"
        metrics = graph.metrics
      }
    }]
  })
}
