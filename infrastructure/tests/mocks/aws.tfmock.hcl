# What AWS would answer, so that plans can be checked without an account. Policies are made of ARNs: these have to look like
# ARNs, and be known while planning.
mock_data "aws_caller_identity" {
  defaults = { account_id = "123456789012" }
}

mock_data "aws_partition" {
  defaults = { partition = "aws" }
}

mock_resource "aws_kms_key" {
  defaults = { arn = "arn:aws:kms:sa-east-1:123456789012:key/mock" }
}

mock_resource "aws_iam_role" {
  defaults = { arn = "arn:aws:iam::123456789012:role/mock" }
}

mock_resource "aws_iam_openid_connect_provider" {
  defaults = { arn = "arn:aws:iam::123456789012:oidc-provider/token.actions.githubusercontent.com" }
}

mock_resource "aws_sqs_queue" {
  defaults = {
    arn = "arn:aws:sqs:sa-east-1:123456789012:mock"
    url = "https://sqs.sa-east-1.amazonaws.com/123456789012/mock"
  }
}

mock_resource "aws_cloudwatch_log_group" {
  defaults = { arn = "arn:aws:logs:sa-east-1:123456789012:log-group:mock" }
}

mock_resource "aws_ecs_cluster" {
  defaults = { arn = "arn:aws:ecs:sa-east-1:123456789012:cluster/mock" }
}

mock_resource "aws_ecs_task_definition" {
  defaults = { arn = "arn:aws:ecs:sa-east-1:123456789012:task-definition/mock:1" }
}

mock_resource "aws_ecr_repository" {
  defaults = {
    arn            = "arn:aws:ecr:sa-east-1:123456789012:repository/mock"
    repository_url = "123456789012.dkr.ecr.sa-east-1.amazonaws.com/mock"
  }
}

mock_resource "aws_db_instance" {
  defaults = {
    address            = "mock.sa-east-1.rds.amazonaws.com"
    resource_id        = "db-MOCK"
    master_user_secret = [{ secret_arn = "arn:aws:secretsmanager:sa-east-1:123456789012:secret:rds!master" }]
  }
}

mock_resource "aws_secretsmanager_secret" {
  defaults = { arn = "arn:aws:secretsmanager:sa-east-1:123456789012:secret:card-keys" }
}

mock_resource "aws_secretsmanager_secret_version" {
  defaults = { version_id = "version" }
}

mock_resource "aws_s3_bucket" {
  defaults = { arn = "arn:aws:s3:::mock" }
}

mock_resource "aws_sns_topic" {
  defaults = { arn = "arn:aws:sns:sa-east-1:123456789012:mock" }
}

mock_resource "aws_lb" {
  defaults = {
    arn        = "arn:aws:elasticloadbalancing:sa-east-1:123456789012:loadbalancer/app/mock/1"
    arn_suffix = "app/mock/1"
  }
}

mock_resource "aws_lb_listener" {
  defaults = { arn = "arn:aws:elasticloadbalancing:sa-east-1:123456789012:listener/app/mock/1/2" }
}

mock_resource "aws_lb_target_group" {
  defaults = {
    arn        = "arn:aws:elasticloadbalancing:sa-east-1:123456789012:targetgroup/mock/1"
    arn_suffix = "targetgroup/mock/1"
  }
}

mock_resource "aws_acm_certificate" {
  defaults = {
    arn = "arn:aws:acm:sa-east-1:123456789012:certificate/mock"
    domain_validation_options = [{
      domain_name           = "psp.example.com"
      resource_record_name  = "_mock.psp.example.com"
      resource_record_type  = "CNAME"
      resource_record_value = "mock.acm-validations.aws"
    }]
  }
}

mock_resource "aws_wafv2_web_acl" {
  defaults = { arn = "arn:aws:wafv2:sa-east-1:123456789012:regional/webacl/mock/1" }
}

mock_resource "aws_security_group" {
  defaults = { id = "sg-0123456789abcdef0" }
}

mock_resource "aws_scheduler_schedule_group" {
  defaults = { arn = "arn:aws:scheduler:sa-east-1:123456789012:schedule-group/mock" }
}
