environment = "prod"
region      = "sa-east-1"

# domain_name's zone_id, image, card_keys and gateway_secret differ from account to account: see the README.
domain_name   = "psp.example.com"
internal      = true
allowed_cidrs = ["10.0.0.0/8"]

gateway       = { url = "https://acquirer.example.com/v1" }
gateway_cidrs = ["192.0.2.0/24"]

vpc_cidr           = "10.30.0.0/16"
zones              = ["sa-east-1a", "sa-east-1b", "sa-east-1c"]
single_nat_gateway = false

database = {
  engine_version            = "16"
  instance_class            = "db.m7g.large"
  allocated_storage_gib     = 100
  max_allocated_storage_gib = 1000
  max_connections           = 600
  multi_az                  = true
  backup_retention_days     = 14
}
deletion_protection = true

api    = { cpu = 1024, memory_mib = 2048, min_tasks = 2, max_tasks = 8 }
worker = { cpu = 1024, memory_mib = 2048, min_tasks = 2, max_tasks = 8 }

log_retention_days = 365
