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

# Write-only: the keys pass through Terraform and stay out of the plan and the state.
resource "aws_secretsmanager_secret_version" "card_keys" {
  secret_id                = aws_secretsmanager_secret.card_keys.id
  secret_string_wo         = var.card_keys
  secret_string_wo_version = var.card_keys_version
}
