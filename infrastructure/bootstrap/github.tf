# Workflows on GitHub log in with short-lived tokens; there is no access key to leak.
resource "aws_iam_openid_connect_provider" "github" {
  count          = var.create_oidc_provider ? 1 : 0
  url            = "https://token.actions.githubusercontent.com"
  client_id_list = ["sts.amazonaws.com"]
}

data "aws_iam_openid_connect_provider" "github" {
  count = var.create_oidc_provider ? 0 : 1
  url   = "https://token.actions.githubusercontent.com"
}

locals {
  provider_arn = one(concat(aws_iam_openid_connect_provider.github[*].arn, data.aws_iam_openid_connect_provider.github[*].arn))

  # The repository as tokens name it. Numbers cannot be taken over by somebody who takes over a name.
  owner_and_name = split("/", var.repository)
  repository = (var.repository_ids == null ? var.repository :
  "${local.owner_and_name[0]}@${var.repository_ids.owner}/${local.owner_and_name[1]}@${var.repository_ids.repository}")

  # Who may take which role: the subject of the token.
  subjects = merge(
    {
      # Runs what a pull request says, before anybody has read it.
      plan = ["repo:${local.repository}:pull_request", "repo:${local.repository}:ref:refs/heads/*"]
      push = ["repo:${local.repository}:ref:refs/heads/main", "repo:${local.repository}:ref:refs/tags/v*"]
    },
    # GitHub gives out this subject after the reviewers of the environment have approved.
    { for name in var.environments : "apply-${name}" => ["repo:${local.repository}:environment:${name}"] },
  )
}

resource "aws_iam_role" "github" {
  for_each             = local.subjects
  name                 = "psp-github-${each.key}"
  description          = "Workflows of ${var.repository}: ${each.key}"
  max_session_duration = 7200
  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Principal = { Federated = local.provider_arn }
      Action    = "sts:AssumeRoleWithWebIdentity"
      Condition = {
        StringEquals = { "token.actions.githubusercontent.com:aud" = "sts.amazonaws.com" }
        StringLike   = { "token.actions.githubusercontent.com:sub" = each.value }
      }
    }]
  })
}

# A plan without refresh (-refresh=false): it compares the configuration with the state. A refresh would have to read the card
# keys, and whoever opens a pull request could then, too.
resource "aws_iam_role_policy" "plan" {
  name = "plan-without-refresh"
  role = aws_iam_role.github["plan"].id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid      = "FindState"
        Effect   = "Allow"
        Action   = "s3:ListBucket"
        Resource = aws_s3_bucket.state.arn
      },
      {
        Sid      = "ReadState"
        Effect   = "Allow"
        Action   = "s3:GetObject"
        Resource = [for name in var.environments : "${aws_s3_bucket.state.arn}/${name}/terraform.tfstate"]
      },
      {
        Sid      = "DecryptState"
        Effect   = "Allow"
        Action   = "kms:Decrypt"
        Resource = module.state_key.arn
      },
    ]
  })
}

resource "aws_iam_role_policy" "push" {
  name = "push-images"
  role = aws_iam_role.github["push"].id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        # AWS knows no narrower resource for this action.
        Sid      = "LogInToRegistry"
        Effect   = "Allow"
        Action   = "ecr:GetAuthorizationToken"
        Resource = "*"
      },
      {
        Sid    = "PushImages"
        Effect = "Allow"
        Action = [
          "ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:CompleteLayerUpload", "ecr:DescribeImages",
          "ecr:GetDownloadUrlForLayer", "ecr:InitiateLayerUpload", "ecr:PutImage", "ecr:UploadLayerPart",
        ]
        Resource = module.registry.arn
      },
    ]
  })
}

# Everything but IAM, and of IAM the roles of the one environment. Those can be given any policy, so that who approves a deployment
# to an environment on GitHub decides about everything in its account.
resource "aws_iam_role_policy_attachment" "apply" {
  for_each   = var.environments
  role       = aws_iam_role.github["apply-${each.key}"].name
  policy_arn = "${local.arn_prefix}:iam::aws:policy/PowerUserAccess"
}

resource "aws_iam_role_policy" "apply" {
  for_each = var.environments
  name     = "roles-of-this-environment"
  role     = aws_iam_role.github["apply-${each.key}"].id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = concat([
      {
        Sid    = "RolesOfThisEnvironment"
        Effect = "Allow"
        Action = [
          "iam:AttachRolePolicy", "iam:CreateRole", "iam:DeleteRole", "iam:DeleteRolePolicy", "iam:DetachRolePolicy", "iam:GetRole",
          "iam:GetRolePolicy", "iam:ListAttachedRolePolicies", "iam:ListInstanceProfilesForRole", "iam:ListRolePolicies", "iam:PassRole",
          "iam:PutRolePolicy", "iam:TagRole", "iam:UntagRole", "iam:UpdateAssumeRolePolicy", "iam:UpdateRole", "iam:UpdateRoleDescription",
        ]
        Resource = "${local.arn_prefix}:iam::${local.account_id}:role/psp-${each.key}-*"
      },
      {
        Sid      = "TheStateBucketStays"
        Effect   = "Deny"
        Action   = ["s3:DeleteBucket", "s3:DeleteBucketPolicy", "s3:DeleteObjectVersion", "s3:PutBucketPolicy", "s3:PutBucketVersioning", "s3:PutLifecycleConfiguration"]
        Resource = [aws_s3_bucket.state.arn, "${aws_s3_bucket.state.arn}/*"]
      },
      ],
      [for other in setsubtract(var.environments, [each.key]) : {
        Sid      = "NotTheStateOf${other}"
        Effect   = "Deny"
        Action   = ["s3:GetObject", "s3:PutObject", "s3:DeleteObject"]
        Resource = "${aws_s3_bucket.state.arn}/${other}/*"
      }],
    )
  })
}
