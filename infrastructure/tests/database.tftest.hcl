mock_provider "aws" {
  source          = "./tests/mocks"
  override_during = plan
}

variables {
  name                      = "psp-test"
  vpc_id                    = "vpc-0123456789abcdef0"
  subnet_ids                = ["subnet-1", "subnet-2"]
  client_security_group_ids = { api = "sg-1", worker = "sg-2" }
  engine_version            = "16"
  instance_class            = "db.t4g.small"
  master_username           = "psp_admin"
  allocated_storage_gib     = 20
  max_allocated_storage_gib = 50
  max_connections           = 200
  multi_az                  = true
  backup_retention_days     = 7
  deletion_protection       = true
  log_retention_days        = 30
  log_key_arn               = "arn:aws:kms:sa-east-1:123456789012:key/logs"
}

run "private_and_encrypted" {
  command = plan
  module {
    source = "./modules/database"
  }

  assert {
    condition     = aws_db_instance.this.publicly_accessible == false
    error_message = "The database has no public address."
  }
  assert {
    condition     = aws_db_instance.this.storage_encrypted && aws_db_instance.this.kms_key_id == module.key.arn
    error_message = "The storage is encrypted with the database's own key."
  }
  assert {
    condition     = aws_db_instance.this.performance_insights_enabled && aws_db_instance.this.performance_insights_kms_key_id == module.key.arn
    error_message = "Performance Insights is on and encrypted."
  }
  assert {
    condition     = alltrue([for rule in aws_vpc_security_group_ingress_rule.client : rule.cidr_ipv4 == null && rule.cidr_ipv6 == null && rule.from_port == 5432 && rule.to_port == 5432])
    error_message = "Only security groups of tasks reach the database, on its port."
  }
}

run "tls_and_logins" {
  command = plan
  module {
    source = "./modules/database"
  }

  assert {
    condition     = one([for parameter in aws_db_parameter_group.this.parameter : parameter.value if parameter.name == "rds.force_ssl"]) == "1"
    error_message = "The server refuses connections without TLS."
  }
  assert {
    condition     = one([for parameter in aws_db_parameter_group.this.parameter : parameter.value if parameter.name == "max_connections"]) == "200"
    error_message = "max_connections is what the tasks were counted against."
  }
  assert {
    condition     = aws_db_instance.this.manage_master_user_password && aws_db_instance.this.password == null && aws_db_instance.this.iam_database_authentication_enabled
    error_message = "RDS keeps the master password, and tasks log in with IAM."
  }
}

run "survives" {
  command = plan
  module {
    source = "./modules/database"
  }

  assert {
    condition     = aws_db_instance.this.multi_az && aws_db_instance.this.deletion_protection && aws_db_instance.this.backup_retention_period == 7
    error_message = "The inputs arrive."
  }
  assert {
    condition     = !aws_db_instance.this.skip_final_snapshot && !aws_db_instance.this.delete_automated_backups && aws_db_instance.this.copy_tags_to_snapshot
    error_message = "A deleted database leaves a snapshot and its backups."
  }
  assert {
    condition     = !aws_db_instance.this.apply_immediately && !aws_db_instance.this.allow_major_version_upgrade
    error_message = "A protected database changes in its maintenance window, and never to another major version by accident."
  }
}

run "logs" {
  command = plan
  module {
    source = "./modules/database"
  }

  assert {
    condition     = aws_db_instance.this.enabled_cloudwatch_logs_exports == toset(["postgresql", "upgrade"])
    error_message = "The logs of the server are exported."
  }
  assert {
    condition     = alltrue([for group in aws_cloudwatch_log_group.this : group.retention_in_days == 30 && group.kms_key_id == var.log_key_arn])
    error_message = "Logs are encrypted and kept for a bounded time."
  }
}

run "backups_cannot_be_off" {
  command = plan
  module {
    source = "./modules/database"
  }
  variables {
    backup_retention_days = 0
  }
  expect_failures = [var.backup_retention_days]
}

run "storage_must_grow" {
  command = plan
  module {
    source = "./modules/database"
  }
  variables {
    max_allocated_storage_gib = 20
  }
  expect_failures = [var.max_allocated_storage_gib]
}
