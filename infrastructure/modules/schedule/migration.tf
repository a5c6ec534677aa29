# The only task that knows the master password.
module "migration" {
  source             = "../task"
  name               = "${var.name}-migrate"
  aws                = var.aws
  image              = var.image
  repository_arn     = var.repository_arn
  command            = ["migrate", "--service-login", var.migration.service_login]
  cpu                = var.cpu
  memory_mib         = var.memory_mib
  environment        = var.migration.environment
  secrets            = var.migration.secrets
  log_retention_days = var.log_retention_days
  log_key_arn        = var.log_key_arn
}

# Runs within the apply, before what depends on this module changes; a failure stops the apply there.
resource "terraform_data" "migration" {
  count            = var.run_migration ? 1 : 0
  triggers_replace = [module.migration.task_definition_arn, var.migration.database_id]

  provisioner "local-exec" {
    command = "${path.module}/run-task.sh"
    environment = {
      AWS_REGION      = var.aws.region
      CLUSTER         = var.cluster_arn
      TASK_DEFINITION = module.migration.task_definition_arn
      SUBNETS         = join(",", var.subnet_ids)
      SECURITY_GROUP  = var.security_group_ids["migrate"]
      LOG_GROUP       = module.migration.log_group_name
    }
  }
}
