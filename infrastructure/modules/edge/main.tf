locals {
  # 80 only redirects to 443.
  ports = { http = 80, https = 443 }
  openings = { for pair in setproduct(keys(local.ports), var.allowed_cidrs) :
    "${pair[0]} ${pair[1]}" => { port = local.ports[pair[0]], cidr = pair[1] }
  }
}

resource "aws_security_group" "this" {
  name        = "${var.name}-edge"
  description = "Load balancer"
  vpc_id      = var.vpc_id
  tags        = { Name = "${var.name}-edge" }
}

resource "aws_vpc_security_group_ingress_rule" "clients" {
  #checkov:skip=CKV_AWS_260:Port 80 answers with a redirect to HTTPS and nothing else; who reaches it is an input.
  for_each          = local.openings
  security_group_id = aws_security_group.this.id
  description       = "Clients, ${each.key}"
  ip_protocol       = "tcp"
  from_port         = each.value.port
  to_port           = each.value.port
  cidr_ipv4         = each.value.cidr
}

resource "aws_vpc_security_group_egress_rule" "api" {
  security_group_id            = aws_security_group.this.id
  description                  = "API"
  ip_protocol                  = "tcp"
  from_port                    = var.api_port
  to_port                      = var.api_port
  referenced_security_group_id = var.api_security_group_id
}

resource "aws_vpc_security_group_ingress_rule" "api" {
  security_group_id            = var.api_security_group_id
  description                  = "Load balancer"
  ip_protocol                  = "tcp"
  from_port                    = var.api_port
  to_port                      = var.api_port
  referenced_security_group_id = aws_security_group.this.id
}

resource "aws_lb" "this" {
  #checkov:skip=CKV_AWS_150:Deletion protection is an input; production refuses to go without.
  name                       = "${var.name}-api"
  load_balancer_type         = "application"
  internal                   = var.internal
  subnets                    = var.subnet_ids
  security_groups            = [aws_security_group.this.id]
  drop_invalid_header_fields = true
  desync_mitigation_mode     = "strictest"
  enable_deletion_protection = var.deletion_protection
  # Above PSP_REQUEST_TIMEOUT_MS, so that psp gives the answer to a request that took too long; below the 45 s after which
  # psp closes an idle connection, or a request might be sent on one that is just being closed, and be answered 502.
  idle_timeout = 40

  access_logs {
    bucket  = aws_s3_bucket.access_logs.id
    enabled = true
  }

  depends_on = [aws_s3_bucket_policy.access_logs]
}

resource "aws_lb_target_group" "api" {
  #checkov:skip=CKV_AWS_378:TLS ends at the load balancer; from there it is a private subnet and a security group that admits nobody else.
  name                 = "${var.name}-api"
  target_type          = "ip"
  protocol             = "HTTP"
  port                 = var.api_port
  vpc_id               = var.vpc_id
  deregistration_delay = 30

  # Liveness rather than readiness: ECS replaces what is unhealthy here, and while the database fails over every task is not
  # ready. Replacing them all would make an outage of a minute one of several.
  health_check {
    path                = "/_liveness_check_"
    matcher             = "200"
    interval            = 10
    timeout             = 5
    healthy_threshold   = 2
    unhealthy_threshold = 3
  }
}

resource "aws_lb_listener" "http" {
  load_balancer_arn = aws_lb.this.arn
  port              = 80
  protocol          = "HTTP"

  default_action {
    type = "redirect"
    redirect {
      protocol    = "HTTPS"
      port        = "443"
      status_code = "HTTP_301"
    }
  }
}

resource "aws_lb_listener" "https" {
  load_balancer_arn = aws_lb.this.arn
  port              = 443
  protocol          = "HTTPS"
  ssl_policy        = "ELBSecurityPolicy-TLS13-1-2-2021-06"
  certificate_arn   = local.issue ? aws_acm_certificate_validation.this[0].certificate_arn : var.certificate_arn

  default_action {
    type             = "forward"
    target_group_arn = aws_lb_target_group.api.arn
  }
}

# Metrics tell depths of queues and counts of dead letters, which are no business of clients.
resource "aws_lb_listener_rule" "no_metrics" {
  listener_arn = aws_lb_listener.https.arn
  priority     = 1

  condition {
    path_pattern {
      values = ["/metrics", "/metrics/*"]
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
