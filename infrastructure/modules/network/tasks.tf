# One group for each kind of task. They start without rules; modules that need a way in or out add it.
resource "aws_security_group" "task" {
  #checkov:skip=CKV2_AWS_5:The services and schedules of other modules use these groups.
  for_each    = var.task_groups
  name        = "${var.name}-${each.key}"
  description = "Tasks: ${each.key}"
  vpc_id      = aws_vpc.this.id
  tags        = { Name = "${var.name}-${each.key}" }
}

resource "aws_vpc_security_group_egress_rule" "endpoints" {
  for_each                     = aws_security_group.task
  security_group_id            = each.value.id
  description                  = "HTTPS to the interface endpoints"
  ip_protocol                  = "tcp"
  from_port                    = 443
  to_port                      = 443
  referenced_security_group_id = aws_security_group.endpoints.id
}

resource "aws_vpc_security_group_egress_rule" "s3" {
  for_each          = aws_security_group.task
  security_group_id = each.value.id
  description       = "HTTPS to S3, for the layers of the image"
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
  prefix_list_id    = aws_vpc_endpoint.s3.prefix_list_id
}

# Without interface endpoints the public addresses of AWS are all that is left, and those cannot be listed.
resource "aws_vpc_security_group_egress_rule" "internet" {
  for_each          = var.interface_endpoints ? {} : aws_security_group.task
  security_group_id = each.value.id
  description       = "HTTPS to AWS through the NAT gateway"
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
  cidr_ipv4         = "0.0.0.0/0"
}

# Merchants' endpoints may be anywhere: the worker itself refuses addresses that are not public. Where it may reach AWS through
# the NAT gateway, it may reach them by the same rule.
resource "aws_vpc_security_group_egress_rule" "webhooks" {
  for_each          = var.webhooks && var.interface_endpoints ? toset(["worker"]) : []
  security_group_id = aws_security_group.task[each.key].id
  description       = "HTTPS to webhook endpoints"
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
  cidr_ipv4         = "0.0.0.0/0"
}

resource "aws_vpc_security_group_egress_rule" "gateways" {
  for_each          = toset(var.gateway_cidrs)
  security_group_id = aws_security_group.task["worker"].id
  description       = "HTTPS to a payment gateway"
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
  cidr_ipv4         = each.value
}
