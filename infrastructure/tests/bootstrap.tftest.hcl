mock_provider "aws" {
  source          = "./tests/mocks"
  override_during = plan
}

variables {
  region     = "sa-east-1"
  repository = "example/psp"
}

run "state_bucket" {
  command = plan
  module {
    source = "./bootstrap"
  }

  assert {
    condition     = aws_s3_bucket_versioning.state.versioning_configuration[0].status == "Enabled" && !aws_s3_bucket.state.force_destroy
    error_message = "States have versions, and a bucket with states is not deleted."
  }
  assert {
    condition     = one(one(aws_s3_bucket_server_side_encryption_configuration.state.rule).apply_server_side_encryption_by_default).sse_algorithm == "aws:kms"
    error_message = "States are encrypted."
  }
  assert {
    condition     = aws_s3_bucket_public_access_block.state.block_public_acls && aws_s3_bucket_public_access_block.state.block_public_policy && aws_s3_bucket_public_access_block.state.ignore_public_acls && aws_s3_bucket_public_access_block.state.restrict_public_buckets
    error_message = "States are not public."
  }
  assert {
    condition     = anytrue([for statement in jsondecode(aws_s3_bucket_policy.state.policy).Statement : statement.Effect == "Deny" && statement.Condition.Bool["aws:SecureTransport"] == "false"])
    error_message = "Nothing gets to the states without TLS."
  }
}

run "tokens_that_name_numbers" {
  command = plan
  module {
    source = "./bootstrap"
  }
  variables {
    repository_ids       = { owner = 11, repository = 22 }
    create_oidc_provider = false
  }

  assert {
    condition     = jsondecode(aws_iam_role.github["apply-prod"].assume_role_policy).Statement[0].Condition.StringLike["token.actions.githubusercontent.com:sub"] == ["repo:example@11/psp@22:environment:prod"]
    error_message = "Where GitHub writes numbers into its tokens, they have to fit."
  }
  assert {
    condition     = length(aws_iam_openid_connect_provider.github) == 0
    error_message = "An account's provider of identities is made once."
  }
}

run "roles_of_workflows" {
  command = plan
  module {
    source = "./bootstrap"
  }

  assert {
    condition     = toset(keys(aws_iam_role.github)) == toset(["plan", "push", "apply-dev", "apply-prod"])
    error_message = "There is a role for each purpose."
  }
  assert {
    condition = alltrue([for name, role in aws_iam_role.github : alltrue([for subject in jsondecode(role.assume_role_policy).Statement[0].Condition.StringLike["token.actions.githubusercontent.com:sub"] :
      startswith(subject, "repo:example/psp:")]) && jsondecode(role.assume_role_policy).Statement[0].Condition.StringEquals["token.actions.githubusercontent.com:aud"] == "sts.amazonaws.com"
    ])
    error_message = "Only workflows of the repository take the roles."
  }
  assert {
    condition     = jsondecode(aws_iam_role.github["apply-prod"].assume_role_policy).Statement[0].Condition.StringLike["token.actions.githubusercontent.com:sub"] == ["repo:example/psp:environment:prod"]
    error_message = "Only after the reviewers of prod have approved, prod is changed."
  }
  assert {
    condition = alltrue(flatten([for policy in concat([aws_iam_role_policy.plan, aws_iam_role_policy.push], values(aws_iam_role_policy.apply)) :
      [for statement in jsondecode(policy.policy).Statement : [for action in flatten([statement.Action]) :
        !strcontains(action, "*") && (!contains(flatten([statement.Resource]), "*") || action == "ecr:GetAuthorizationToken")
    ]]]))
    error_message = "Actions are named; resources, too, but for the one action that has none."
  }
  assert {
    condition     = !strcontains(aws_iam_role_policy.plan.policy, "Put") && !strcontains(aws_iam_role_policy.plan.policy, "secretsmanager")
    error_message = "A plan writes nothing and reads no secret."
  }
}

run "a_repository_is_no_pattern" {
  command = plan
  module {
    source = "./bootstrap"
  }
  variables {
    repository = "example/*"
  }
  expect_failures = [var.repository]
}

run "a_region_looks_like_one" {
  command = plan
  module {
    source = "./bootstrap"
  }
  variables {
    region = "Brazil"
  }
  expect_failures = [var.region]
}

run "an_environment_has_a_plain_name" {
  command = plan
  module {
    source = "./bootstrap"
  }
  variables {
    environments = ["Prod-1"]
  }
  expect_failures = [var.environments]
}

run "images_are_immutable_and_scanned" {
  command = plan
  module {
    source = "./modules/registry"
  }
  variables {
    name = "psp"
  }

  assert {
    condition     = aws_ecr_repository.this.image_tag_mutability == "IMMUTABLE" && aws_ecr_repository.this.image_scanning_configuration[0].scan_on_push && aws_ecr_repository.this.encryption_configuration[0].encryption_type == "KMS"
    error_message = "Tags stay what they were, images are scanned and encrypted."
  }
  assert {
    condition     = [for rule in jsondecode(aws_ecr_lifecycle_policy.this.policy).rules : try(rule.selection.tagPatternList, null)] == [null, ["*.*.*"], null]
    error_message = "Old images expire, and releases by a rule of their own."
  }
}

run "too_few_images" {
  command = plan
  module {
    source = "./modules/registry"
  }
  variables {
    name          = "psp"
    releases_kept = 3
    build_days    = 1
  }
  expect_failures = [var.releases_kept, var.build_days]
}
