locals {
  # Messages that could not be processed wait here for a person; see `psp dlq`.
  dead_letter_retention_seconds = 14 * 24 * 3600
}

module "key" {
  source      = "../key"
  name        = "${var.prefix}queues"
  description = "Messages of the queues ${var.prefix}*"
}

resource "aws_sqs_queue" "dead" {
  for_each                          = var.queues
  name                              = "${var.prefix}${each.key}-dlq"
  message_retention_seconds         = local.dead_letter_retention_seconds
  visibility_timeout_seconds        = each.value.visibility_timeout_seconds
  receive_wait_time_seconds         = 20
  kms_master_key_id                 = module.key.arn
  kms_data_key_reuse_period_seconds = 300
}

resource "aws_sqs_queue" "this" {
  for_each                          = var.queues
  name                              = "${var.prefix}${each.key}"
  message_retention_seconds         = each.value.retention_seconds
  visibility_timeout_seconds        = each.value.visibility_timeout_seconds
  receive_wait_time_seconds         = 20
  kms_master_key_id                 = module.key.arn
  kms_data_key_reuse_period_seconds = 300

  redrive_policy = jsonencode({
    deadLetterTargetArn = aws_sqs_queue.dead[each.key].arn
    maxReceiveCount     = each.value.max_receives
  })
}

resource "aws_sqs_queue_redrive_allow_policy" "dead" {
  for_each  = var.redrive_allow_policy ? var.queues : {}
  queue_url = aws_sqs_queue.dead[each.key].url
  redrive_allow_policy = jsonencode({
    redrivePermission = "byQueue"
    sourceQueueArns   = [aws_sqs_queue.this[each.key].arn]
  })
}

locals {
  all = merge(
    { for name, queue in aws_sqs_queue.this : name => { url = queue.url, arn = queue.arn } },
    { for name, queue in aws_sqs_queue.dead : "${name}-dlq" => { url = queue.url, arn = queue.arn } },
  )
}

resource "aws_sqs_queue_policy" "tls_only" {
  for_each  = local.all
  queue_url = each.value.url
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid       = "NothingWithoutTls"
      Effect    = "Deny"
      Principal = "*"
      Action    = "sqs:*"
      Resource  = each.value.arn
      Condition = { Bool = { "aws:SecureTransport" = "false" } }
    }]
  })
}
