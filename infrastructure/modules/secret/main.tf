resource "aws_secretsmanager_secret" "this" {
  #checkov:skip=CKV2_AWS_57:Only a person can tell when an old value may go, so there is no rotation function; the README says how.
  # A prefix: a name is taken for as long as a deleted secret can be had back.
  name_prefix             = "${var.name}-"
  description             = var.description
  kms_key_id              = var.key_arn
  recovery_window_in_days = 30
}

# A number that is new needs a value: otherwise the text below would take the place of one that is in use. Conditions of resources
# cannot look at ephemeral values, and this command only runs where the number is new.
resource "terraform_data" "value_given" {
  triggers_replace = [var.value_version, aws_secretsmanager_secret.this.id]

  provisioner "local-exec" {
    command     = "test \"$GIVEN\" = true || { echo 'The version of ${var.input} is new: set TF_VAR_${var.input} to its value.' >&2; exit 1; }"
    environment = { GIVEN = tostring(var.value != null) }
  }
}

# Write-only: the value passes through Terraform and stays out of the plan and the state. AWS is asked to write where the number is
# new only, but the provider wants some text always.
resource "aws_secretsmanager_secret_version" "this" {
  secret_id                = aws_secretsmanager_secret.this.id
  secret_string_wo         = var.value == null ? "never written" : var.value
  secret_string_wo_version = var.value_version

  depends_on = [terraform_data.value_given]

  # The version that tasks still name stays until the next one is there.
  lifecycle {
    create_before_destroy = true
  }
}
