# Callbacks of gateways. psp verifies their signatures itself, so they need no authenticating gateway in front; everything else
# does. So the host name of the callbacks leads to POST /callback/* and nowhere else, whoever asks. Where gateways come to this
# load balancer themselves, requests to all other names pass only from the ranges of the clients: a host name can be made up, an
# address cannot.
locals {
  callback_hosts = var.callbacks[*].host_name
  callers        = try(var.callbacks.cidrs, toset([]))
  direct         = length(local.callers) > 0
  issue_callback = local.direct && var.zone_id != null && try(var.callbacks.certificate_arn, null) == null

  # A condition of a listener takes five ranges.
  client_chunks = local.direct ? { for i, chunk in chunklist(sort(var.allowed_cidrs), 5) : tostring(i) => chunk } : {}
}

resource "aws_lb_listener_rule" "callbacks" {
  for_each     = toset(local.callback_hosts)
  listener_arn = aws_lb_listener.https.arn
  priority     = 2

  condition {
    host_header {
      values = [each.value]
    }
  }
  condition {
    path_pattern {
      values = ["/callback/*"]
    }
  }
  condition {
    http_request_method {
      values = ["POST"]
    }
  }

  action {
    type             = "forward"
    target_group_arn = aws_lb_target_group.api.arn
  }
}

resource "aws_lb_listener_rule" "callbacks_only" {
  for_each     = toset(local.callback_hosts)
  listener_arn = aws_lb_listener.https.arn
  priority     = 3

  condition {
    host_header {
      values = [each.value]
    }
  }

  action {
    type = "fixed-response"
    fixed_response {
      content_type = "text/plain"
      status_code  = "404"
    }
  }
}

# The peer's address, not what a header says of it.
resource "aws_lb_listener_rule" "clients" {
  for_each     = local.client_chunks
  listener_arn = aws_lb_listener.https.arn
  priority     = 10 + tonumber(each.key)

  condition {
    source_ip {
      values = each.value
    }
  }

  action {
    type             = "forward"
    target_group_arn = aws_lb_target_group.api.arn
  }
}

resource "aws_lb_listener_rule" "nobody_else" {
  count        = local.direct ? 1 : 0
  listener_arn = aws_lb_listener.https.arn
  priority     = 1000

  condition {
    path_pattern {
      values = ["*"]
    }
  }

  action {
    type = "fixed-response"
    fixed_response {
      content_type = "text/plain"
      status_code  = "404"
    }
  }

  # Clients are let through at all times.
  depends_on = [aws_lb_listener_rule.clients]
}

resource "aws_vpc_security_group_ingress_rule" "callers" {
  for_each          = setsubtract(local.callers, var.allowed_cidrs)
  security_group_id = aws_security_group.this.id
  description       = "Callbacks of gateways, ${each.value}"
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
  cidr_ipv4         = each.value

  # Opened last and closed first.
  depends_on = [aws_lb_listener_rule.callbacks, aws_lb_listener_rule.callbacks_only, aws_lb_listener_rule.nobody_else]
}

# A certificate of its own: adding the name to the API's would replace that.
resource "aws_acm_certificate" "callbacks" {
  count             = local.issue_callback ? 1 : 0
  domain_name       = var.callbacks.host_name
  validation_method = "DNS"

  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_route53_record" "callbacks_validation" {
  count           = local.issue_callback ? 1 : 0
  zone_id         = var.zone_id
  name            = one(aws_acm_certificate.callbacks[0].domain_validation_options).resource_record_name
  type            = one(aws_acm_certificate.callbacks[0].domain_validation_options).resource_record_type
  records         = [one(aws_acm_certificate.callbacks[0].domain_validation_options).resource_record_value]
  ttl             = 300
  allow_overwrite = true
}

resource "aws_acm_certificate_validation" "callbacks" {
  count                   = local.issue_callback ? 1 : 0
  certificate_arn         = aws_acm_certificate.callbacks[0].arn
  validation_record_fqdns = aws_route53_record.callbacks_validation[*].fqdn
}

resource "aws_lb_listener_certificate" "callbacks" {
  count           = local.issue_callback || try(var.callbacks.certificate_arn, null) != null ? 1 : 0
  listener_arn    = aws_lb_listener.https.arn
  certificate_arn = local.issue_callback ? aws_acm_certificate_validation.callbacks[0].certificate_arn : var.callbacks.certificate_arn
}

resource "aws_route53_record" "callbacks" {
  count   = local.direct && var.zone_id != null ? 1 : 0
  zone_id = var.zone_id
  name    = var.callbacks.host_name
  type    = "A"

  alias {
    name                   = aws_lb.this.dns_name
    zone_id                = aws_lb.this.zone_id
    evaluate_target_health = true
  }
}
