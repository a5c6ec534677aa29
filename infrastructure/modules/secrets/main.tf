module "key" {
  source      = "../key"
  name        = "${var.name}-secrets"
  description = "Card keys of ${var.name}"
}

resource "aws_secretsmanager_secret" "card_keys" {
  #checkov:skip=CKV2_AWS_57:Only a person can tell when the old card key may go, so there is no rotation function; the README says how.
  # A prefix: a name is taken for as long as a deleted secret can be had back.
  name_prefix             = "${var.name}/card-keys-"
  description             = "PSP_CARD_KEYS: keys that seal card numbers; the first seals, all open"
  kms_key_id              = module.key.arn
  recovery_window_in_days = 30
}

# A number that is new needs keys: otherwise the text below would take the place of the keys that open what is sealed. Conditions of
# resources cannot look at ephemeral values, and this command only runs where the number is new.
resource "terraform_data" "card_keys_given" {
  triggers_replace = [var.card_keys_version, aws_secretsmanager_secret.card_keys.id]

  provisioner "local-exec" {
    command     = "test \"$GIVEN\" = true || { echo 'card_keys_version is new: set TF_VAR_card_keys to its keys.' >&2; exit 1; }"
    environment = { GIVEN = tostring(var.card_keys != null) }
  }
}

# Write-only: the keys pass through Terraform and stay out of the plan and the state. AWS is asked to write where the number is
# new only, but the provider wants some text always.
resource "aws_secretsmanager_secret_version" "card_keys" {
  secret_id                = aws_secretsmanager_secret.card_keys.id
  secret_string_wo         = var.card_keys == null ? "never written" : var.card_keys
  secret_string_wo_version = var.card_keys_version

  depends_on = [terraform_data.card_keys_given]

  # The version that tasks still name stays until the next one is there.
  lifecycle {
    create_before_destroy = true
  }
}
