module "registry" {
  source = "../modules/registry"
  name   = "psp"
}
