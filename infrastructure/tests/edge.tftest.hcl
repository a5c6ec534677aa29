mock_provider "aws" {
  source          = "./tests/mocks"
  override_during = plan
}

variables {
  name                  = "psp-test"
  region                = "sa-east-1"
  vpc_id                = "vpc-0123456789abcdef0"
  subnet_ids            = ["subnet-1", "subnet-2"]
  internal              = true
  allowed_cidrs         = ["10.0.0.0/8"]
  api_security_group_id = "sg-1"
  api_port              = 3000
  domain_name           = "psp.example.com"
  zone_id               = "Z1"
  certificate_arn       = "arn:aws:acm:sa-east-1:123456789012:certificate/own"
  rate_limit            = 1000
  deletion_protection   = true
  log_retention_days    = 30
  log_key_arn           = "arn:aws:kms:sa-east-1:123456789012:key/logs"
}

run "https_only" {
  command = plan
  module {
    source = "./modules/edge"
  }

  assert {
    condition     = aws_lb_listener.https.protocol == "HTTPS" && startswith(aws_lb_listener.https.ssl_policy, "ELBSecurityPolicy-TLS13-1-2") && aws_lb_listener.https.certificate_arn == var.certificate_arn
    error_message = "HTTPS needs TLS 1.2 or 1.3 and uses the certificate that was brought."
  }
  assert {
    condition     = aws_lb_listener.http.default_action[0].type == "redirect" && aws_lb_listener.http.default_action[0].redirect[0].protocol == "HTTPS" && aws_lb_listener.http.default_action[0].redirect[0].status_code == "HTTP_301"
    error_message = "HTTP redirects to HTTPS."
  }
}

run "open_to_whom" {
  command = plan
  module {
    source = "./modules/edge"
  }

  assert {
    condition     = toset([for rule in aws_vpc_security_group_ingress_rule.clients : "${rule.cidr_ipv4} ${rule.from_port}-${rule.to_port}"]) == toset(["10.0.0.0/8 80-80", "10.0.0.0/8 443-443"])
    error_message = "Only the ranges that were named reach the load balancer, on ports 80 and 443."
  }
  assert {
    condition     = aws_vpc_security_group_egress_rule.api.cidr_ipv4 == null && aws_vpc_security_group_ingress_rule.api.cidr_ipv4 == null && aws_vpc_security_group_ingress_rule.api.from_port == 3000 && aws_vpc_security_group_ingress_rule.api.to_port == 3000
    error_message = "Between the load balancer and the API there are groups, not ranges."
  }
  assert {
    condition     = aws_lb.this.internal && aws_lb.this.drop_invalid_header_fields && aws_lb.this.enable_deletion_protection && one(aws_lb.this.access_logs).enabled
    error_message = "The load balancer is internal, drops invalid headers, is protected, and logs accesses."
  }
}

run "the_world_only_on_80_and_443" {
  command = plan
  module {
    source = "./modules/edge"
  }
  variables {
    internal      = false
    allowed_cidrs = ["0.0.0.0/0"]
  }

  assert {
    condition     = alltrue([for rule in aws_vpc_security_group_ingress_rule.clients : contains([80, 443], rule.from_port) && rule.from_port == rule.to_port])
    error_message = "Even where everybody may come, it is on ports 80 and 443."
  }
  assert {
    condition     = aws_vpc_security_group_egress_rule.api.cidr_ipv4 == null && aws_vpc_security_group_ingress_rule.api.cidr_ipv4 == null
    error_message = "The API stays behind the load balancer."
  }
}

run "without_callbacks_every_request_is_of_a_client" {
  command = plan
  module {
    source = "./modules/edge"
  }

  assert {
    condition     = aws_lb_listener.https.default_action[0].type == "forward" && length(aws_lb_listener_rule.callbacks) + length(aws_lb_listener_rule.callbacks_only) + length(aws_lb_listener_rule.clients) + length(aws_lb_listener_rule.nobody_else) == 0
    error_message = "Where gateways do not call back, the security group alone decides."
  }
}

run "callbacks_lead_to_one_path" {
  command = plan
  module {
    source = "./modules/edge"
  }
  variables {
    callbacks = { host_name = "callbacks.psp.example.com", cidrs = [] }
  }

  assert {
    condition = toset(flatten([for condition in aws_lb_listener_rule.callbacks["callbacks.psp.example.com"].condition : [
      for of in concat(condition.host_header, condition.path_pattern, condition.http_request_method) : tolist(of.values)
    ]])) == toset(["callbacks.psp.example.com", "/callback/*", "POST"])
    error_message = "Under the name of the callbacks POST /callback/* is let through."
  }
  assert {
    condition     = one(aws_lb_listener_rule.callbacks_only["callbacks.psp.example.com"].condition).host_header[0].values == toset(["callbacks.psp.example.com"]) && aws_lb_listener_rule.callbacks_only["callbacks.psp.example.com"].action[0].fixed_response[0].status_code == "404"
    error_message = "Nothing else is there under that name, not even for clients."
  }
  assert {
    condition     = aws_lb_listener_rule.no_metrics.priority < aws_lb_listener_rule.callbacks["callbacks.psp.example.com"].priority && aws_lb_listener_rule.callbacks["callbacks.psp.example.com"].priority < aws_lb_listener_rule.callbacks_only["callbacks.psp.example.com"].priority
    error_message = "Rules are looked at in this order."
  }
  assert {
    condition     = length(aws_vpc_security_group_ingress_rule.callers) + length(aws_lb_listener_rule.clients) + length(aws_lb_listener_rule.nobody_else) + length(aws_route53_record.callbacks) + length(aws_lb_listener_certificate.callbacks) == 0
    error_message = "Where something in front lets callbacks through, nobody new reaches the load balancer."
  }
}

run "gateways_that_come_themselves_get_nowhere_else" {
  command = plan
  module {
    source = "./modules/edge"
  }
  variables {
    internal      = false
    allowed_cidrs = ["10.0.0.0/8", "192.0.2.0/28", "192.0.2.16/28", "192.0.2.32/28", "192.0.2.48/28", "192.0.2.64/28"]
    callbacks     = { host_name = "callbacks.psp.example.com", cidrs = ["0.0.0.0/0", "10.0.0.0/8"] }
  }

  assert {
    condition     = [for rule in aws_vpc_security_group_ingress_rule.callers : "${rule.cidr_ipv4} ${rule.from_port}-${rule.to_port}"] == ["0.0.0.0/0 443-443"]
    error_message = "Gateways reach port 443, and a range that clients have, too, is opened once."
  }
  assert {
    condition     = toset(flatten([for rule in aws_lb_listener_rule.clients : tolist(one(rule.condition).source_ip[0].values)])) == toset(var.allowed_cidrs) && alltrue([for rule in aws_lb_listener_rule.clients : length(one(rule.condition).source_ip[0].values) <= 5 && rule.action[0].type == "forward"])
    error_message = "All clients are let through, and no rule names more ranges than AWS takes."
  }
  assert {
    condition     = one(aws_lb_listener_rule.nobody_else[0].condition).path_pattern[0].values == toset(["*"]) && aws_lb_listener_rule.nobody_else[0].action[0].fixed_response[0].status_code == "404"
    error_message = "Nobody else gets anywhere, whatever host name they say."
  }
  assert {
    condition = alltrue([for rule in aws_lb_listener_rule.clients :
    aws_lb_listener_rule.callbacks_only["callbacks.psp.example.com"].priority < rule.priority && rule.priority < aws_lb_listener_rule.nobody_else[0].priority])
    error_message = "Clients are known before everybody is refused, and after the callbacks."
  }
  assert {
    condition     = aws_route53_record.callbacks[0].name == "callbacks.psp.example.com" && aws_acm_certificate.callbacks[0].domain_name == "callbacks.psp.example.com" && length(aws_lb_listener_certificate.callbacks) == 1
    error_message = "The name of the callbacks has a record and a certificate."
  }
}

run "a_certificate_for_callbacks_can_be_brought" {
  command = plan
  module {
    source = "./modules/edge"
  }
  variables {
    zone_id   = null
    callbacks = { host_name = "callbacks.psp.example.com", cidrs = ["198.51.100.0/24"], certificate_arn = "arn:aws:acm:sa-east-1:123456789012:certificate/callbacks" }
  }

  assert {
    condition     = length(aws_acm_certificate.callbacks) + length(aws_route53_record.callbacks) == 0 && aws_lb_listener_certificate.callbacks[0].certificate_arn == var.callbacks.certificate_arn
    error_message = "The certificate that was brought is used, and DNS is elsewhere."
  }
}

run "a_failover_of_the_database_replaces_no_task" {
  command = plan
  module {
    source = "./modules/edge"
  }

  assert {
    condition     = aws_lb_target_group.api.health_check[0].path == "/_liveness_check_"
    error_message = "Targets are asked whether they live, not whether the database does."
  }
}

run "firewall" {
  command = plan
  module {
    source = "./modules/edge"
  }

  assert {
    condition     = anytrue([for rule in aws_wafv2_web_acl.this.rule : try(rule.statement[0].rate_based_statement[0].limit == 1000 && rule.statement[0].rate_based_statement[0].aggregate_key_type == "IP", false)])
    error_message = "Requests of one address are limited."
  }
  assert {
    condition = length(setsubtract(["AWSManagedRulesCommonRuleSet", "AWSManagedRulesKnownBadInputsRuleSet"],
    [for rule in aws_wafv2_web_acl.this.rule : rule.name])) == 0
    error_message = "Rules of AWS against common attacks and known bad inputs apply."
  }
  assert {
    condition     = aws_cloudwatch_log_group.waf.retention_in_days == 30 && aws_cloudwatch_log_group.waf.kms_key_id == var.log_key_arn
    error_message = "The log of the firewall is encrypted and kept for a bounded time."
  }
}

run "access_logs_are_private" {
  command = plan
  module {
    source = "./modules/edge"
  }

  assert {
    condition     = aws_s3_bucket_public_access_block.access_logs.block_public_acls && aws_s3_bucket_public_access_block.access_logs.block_public_policy && aws_s3_bucket_public_access_block.access_logs.ignore_public_acls && aws_s3_bucket_public_access_block.access_logs.restrict_public_buckets
    error_message = "The bucket is not public."
  }
  assert {
    condition     = one(one(aws_s3_bucket_server_side_encryption_configuration.access_logs.rule).apply_server_side_encryption_by_default).sse_algorithm == "AES256" && !aws_s3_bucket.access_logs.force_destroy
    error_message = "The bucket is encrypted and protected."
  }
}

run "dns_or_certificate" {
  command = plan
  module {
    source = "./modules/edge"
  }
  variables {
    zone_id         = null
    certificate_arn = null
  }
  expect_failures = [var.certificate_arn]
}
