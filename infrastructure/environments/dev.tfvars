environment = "dev"
region      = "sa-east-1"

# domain_name's zone_id, image and card_keys differ from account to account: see the README.
domain_name   = "psp.dev.example.com"
internal      = true
allowed_cidrs = ["10.0.0.0/8"]

# No gateway: payments go through the sandbox, which charges nobody.

vpc_cidr           = "10.20.0.0/16"
zones              = ["sa-east-1a", "sa-east-1b"]
single_nat_gateway = true

database = {
  engine_version            = "16"
  instance_class            = "db.t4g.small"
  allocated_storage_gib     = 20
  max_allocated_storage_gib = 50
  max_connections           = 200
  multi_az                  = false
  backup_retention_days     = 7
}
deletion_protection = false

api    = { cpu = 256, memory_mib = 512, min_tasks = 1, max_tasks = 2 }
worker = { cpu = 256, memory_mib = 512, min_tasks = 1, max_tasks = 2 }

log_retention_days = 30
