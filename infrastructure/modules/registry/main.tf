module "key" {
  source      = "../key"
  name        = "${var.name}-registry"
  description = "Images of ${var.name}"
}

resource "aws_ecr_repository" "this" {
  name                 = var.name
  image_tag_mutability = "IMMUTABLE"

  image_scanning_configuration {
    scan_on_push = true
  }

  encryption_configuration {
    encryption_type = "KMS"
    kms_key         = module.key.arn
  }
}

resource "aws_ecr_lifecycle_policy" "this" {
  repository = aws_ecr_repository.this.name
  policy = jsonencode({
    rules = [
      {
        rulePriority = 1
        description  = "Layers of builds that were never tagged"
        selection    = { tagStatus = "untagged", countType = "sinceImagePushed", countUnit = "days", countNumber = 7 }
        action       = { type = "expire" }
      },
      {
        # An image belongs to the first rule that matches it, so that no later one takes a release away.
        rulePriority = 2
        description  = "Releases, to run and to roll back to"
        selection    = { tagStatus = "tagged", tagPatternList = ["*.*.*"], countType = "imageCountMoreThan", countNumber = var.releases_kept }
        action       = { type = "expire" }
      },
      {
        rulePriority = 3
        description  = "Builds of commits"
        selection    = { tagStatus = "any", countType = "sinceImagePushed", countUnit = "days", countNumber = var.build_days }
        action       = { type = "expire" }
      },
    ]
  })
}
