terraform {
  # Write-only arguments, which keep the card keys out of the state, need 1.11.
  required_version = ">= 1.11, < 2.0"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = "~> 5.100"
    }
  }

  # The rest comes from environments/*.s3.tfbackend. A lock is an object beside the state, which S3 creates only where
  # none is (conditional writes), so there is no DynamoDB table to pay for and to keep.
  backend "s3" {}
}

provider "aws" {
  region = var.region

  default_tags {
    tags = {
      project     = "psp"
      environment = var.environment
      managed-by  = "terraform"
    }
  }
}
