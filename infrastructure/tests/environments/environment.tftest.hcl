# Plans an environment with its own file of values:
#   terraform test -test-directory=tests/environments -var-file=environments/prod.tfvars
mock_provider "aws" {
  source          = "./tests/mocks"
  override_during = plan
}

run "the_values_are_accepted" {
  command = plan
  variables {
    image          = "123456789012.dkr.ecr.sa-east-1.amazonaws.com/psp:1.0.0"
    card_keys      = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
    gateway_secret = "0123456789abcdef0123456789abcdef"
    zone_id        = "Z0123456789ABCDEFGHIJ"
  }

  assert {
    condition     = output.url == "https://${var.domain_name}" && output.cluster == "psp-${var.environment}"
    error_message = "The stack is that of the environment."
  }
  assert {
    condition     = var.internal && !contains(var.allowed_cidrs, "0.0.0.0/0")
    error_message = "The API is not open to the world: who reaches it can act as any customer."
  }
}
