mock_provider "aws" {
  source          = "./tests/mocks"
  override_during = plan
}

variables {
  name                = "psp-test"
  region              = "sa-east-1"
  cidr                = "10.0.0.0/16"
  zones               = ["sa-east-1a", "sa-east-1b"]
  single_nat_gateway  = false
  interface_endpoints = true
  gateway_cidrs       = []
  webhooks            = false
  task_groups         = ["api", "worker"]
  log_retention_days  = 30
  log_key_arn         = "arn:aws:kms:sa-east-1:123456789012:key/logs"
}

run "subnets_do_not_overlap_and_span_zones" {
  command = plan
  module {
    source = "./modules/network"
  }

  assert {
    condition     = length(aws_subnet.public) == 2 && length(aws_subnet.private) == 2 && length(aws_subnet.database) == 2
    error_message = "Each zone has a public, a private and a database subnet."
  }
  assert {
    condition = length(distinct(concat(
      [for subnet in aws_subnet.public : subnet.cidr_block],
      [for subnet in aws_subnet.private : subnet.cidr_block],
      [for subnet in aws_subnet.database : subnet.cidr_block],
    ))) == 6
    error_message = "No two subnets share a range."
  }
  assert {
    condition     = alltrue([for subnet in concat(values(aws_subnet.public), values(aws_subnet.private), values(aws_subnet.database)) : subnet.map_public_ip_on_launch != true])
    error_message = "No subnet gives public addresses by itself."
  }
}

run "the_database_has_no_way_out" {
  command = plan
  module {
    source = "./modules/network"
  }
  override_resource {
    target          = aws_route_table.public
    override_during = plan
    values          = { id = "rtb-public" }
  }
  override_resource {
    target          = aws_route_table.private
    override_during = plan
    values          = { id = "rtb-private" }
  }
  override_resource {
    target          = aws_route_table.database
    override_during = plan
    values          = { id = "rtb-database" }
  }

  assert {
    condition     = aws_route.internet.route_table_id == "rtb-public" && alltrue([for route in aws_route.nat : route.route_table_id == "rtb-private"])
    error_message = "The route table of the database has no route out of the VPC."
  }
  assert {
    condition     = alltrue([for association in aws_route_table_association.database : association.route_table_id == "rtb-database"])
    error_message = "The database's subnets use the route table without a way out."
  }
}

run "default_group_is_closed" {
  command = plan
  module {
    source = "./modules/network"
  }

  assert {
    condition     = try(length(aws_default_security_group.closed.ingress), 0) == 0 && try(length(aws_default_security_group.closed.egress), 0) == 0
    error_message = "The default security group has no rules."
  }
}

run "nothing_is_open_to_the_world" {
  command = plan
  module {
    source = "./modules/network"
  }

  assert {
    condition     = length(aws_vpc_security_group_egress_rule.internet) == 0 && length(aws_vpc_security_group_egress_rule.gateways) == 0 && length(aws_vpc_security_group_egress_rule.webhooks) == 0
    error_message = "With interface endpoints no task may connect to any address."
  }
  assert {
    condition = alltrue([for rule in concat(
      values(aws_vpc_security_group_ingress_rule.endpoints), values(aws_vpc_security_group_egress_rule.endpoints), values(aws_vpc_security_group_egress_rule.s3),
    ) : rule.cidr_ipv4 == null && rule.cidr_ipv6 == null])
    error_message = "Rules name groups and prefix lists, not ranges."
  }
}

run "gateways_are_reached_by_the_worker_alone" {
  command = plan
  module {
    source = "./modules/network"
  }
  variables {
    gateway_cidrs = ["192.0.2.0/24"]
  }
  override_resource {
    target          = aws_security_group.task["worker"]
    override_during = plan
    values          = { id = "sg-worker" }
  }

  assert {
    condition     = [for rule in aws_vpc_security_group_egress_rule.gateways : "${rule.security_group_id} ${rule.cidr_ipv4} ${rule.from_port}-${rule.to_port}"] == ["sg-worker 192.0.2.0/24 443-443"]
    error_message = "The API knows gateways and never calls them: it has no way to them."
  }
  assert {
    condition     = alltrue([for name, group in aws_security_group.task : (name == "worker") == (group.id == "sg-worker")])
    error_message = "The worker's group is told from the others."
  }
}

run "webhooks_are_delivered_by_the_worker_alone" {
  command = plan
  module {
    source = "./modules/network"
  }
  variables {
    webhooks = true
  }
  override_resource {
    target          = aws_security_group.task["worker"]
    override_during = plan
    values          = { id = "sg-worker" }
  }

  assert {
    condition     = [for rule in aws_vpc_security_group_egress_rule.webhooks : "${rule.security_group_id} ${rule.cidr_ipv4} ${rule.from_port}-${rule.to_port}"] == ["sg-worker 0.0.0.0/0 443-443"]
    error_message = "Endpoints may be anywhere; only the worker connects to them, and by HTTPS."
  }
}

run "every_endpoint_that_is_needed" {
  command = plan
  module {
    source = "./modules/network"
  }

  assert {
    condition     = toset(keys(aws_vpc_endpoint.interface)) == toset(["sqs", "ecr.api", "ecr.dkr", "logs", "secretsmanager"])
    error_message = "Tasks need SQS, ECR, logs and Secrets Manager."
  }
  assert {
    condition     = alltrue([for endpoint in aws_vpc_endpoint.interface : endpoint.private_dns_enabled]) && aws_vpc_endpoint.s3.vpc_endpoint_type == "Gateway"
    error_message = "Endpoints answer under the usual names, and S3 has one."
  }
}

run "the_endpoint_of_kms_where_tasks_ask_it" {
  command = plan
  module {
    source = "./modules/network"
  }
  variables {
    kms_endpoint = true
  }

  assert {
    condition     = contains(keys(aws_vpc_endpoint.interface), "kms")
    error_message = "Tasks whose card key is in KMS need its endpoint."
  }
}

run "without_endpoints" {
  command = plan
  module {
    source = "./modules/network"
  }
  variables {
    interface_endpoints = false
  }

  assert {
    condition     = length(aws_vpc_endpoint.interface) == 0 && alltrue([for rule in aws_vpc_security_group_egress_rule.internet : rule.from_port == 443 && rule.to_port == 443])
    error_message = "Without endpoints only HTTPS goes out."
  }
}

run "nat_for_each_zone" {
  command = plan
  module {
    source = "./modules/network"
  }

  assert {
    condition     = length(aws_nat_gateway.this) == 2
    error_message = "Each zone has a NAT gateway."
  }
}

run "one_nat" {
  command = plan
  module {
    source = "./modules/network"
  }
  variables {
    single_nat_gateway = true
  }

  assert {
    condition     = length(aws_nat_gateway.this) == 1 && length(aws_route.nat) == 2
    error_message = "One NAT gateway serves both zones."
  }
}

run "flow_logs" {
  command = plan
  module {
    source = "./modules/network"
  }

  assert {
    condition     = aws_flow_log.this.traffic_type == "ALL" && aws_cloudwatch_log_group.flow.retention_in_days == 30 && aws_cloudwatch_log_group.flow.kms_key_id == var.log_key_arn
    error_message = "All traffic is logged, encrypted, for a bounded time."
  }
  assert {
    condition     = alltrue([for statement in jsondecode(aws_iam_role_policy.flow.policy).Statement : !contains(flatten([statement.Resource]), "*")])
    error_message = "The role of the flow logs names its resources."
  }
}

run "one_zone_is_refused" {
  command = plan
  module {
    source = "./modules/network"
  }
  variables {
    zones = ["sa-east-1a"]
  }
  expect_failures = [var.zones]
}
