#!/bin/sh
# Tests the infrastructure: format, validity, plans, and a whole apply to an emulator of AWS, over which the real binary does
# its job. Without Terraform or its provider it says loudly that nothing was tested; with TERRAFORM_REQUIRED=1 that is a failure.
set -eu
cd "$(dirname "$0")"
work=$(cd .. && pwd)/target/infrastructure
mkdir -p "$work/providers"

not_tested() {
    echo "NOT TESTED: infrastructure: $*" >&2
    exit "${TERRAFORM_REQUIRED:-0}"
}

command -v terraform >/dev/null || not_tested "Terraform is not installed"

# A mirror of the provider on this machine, where there is one, so that no network is needed.
mirror=$(find / -maxdepth 5 \( -path /proc -o -path /sys -o -path "$work" \) -prune -o -type d -name registry.terraform.io -print 2>/dev/null |
    while read -r folder; do
        if ls -d "$folder"/hashicorp/aws/*5.100* >/dev/null 2>&1; then echo "${folder%/*}" && break; fi
    done)
if [ -n "$mirror" ]; then
    printf 'provider_installation {\n  filesystem_mirror {\n    path = "%s"\n  }\n}\n' "$mirror" >"$work/mirror.tfrc"
    export TF_CLI_CONFIG_FILE="$work/mirror.tfrc"
elif ! curl --silent --fail --max-time 20 --output /dev/null https://registry.terraform.io/.well-known/terraform.json; then
    not_tested "there is no mirror of the provider on this machine, and registry.terraform.io is out of reach"
fi
# One copy of the provider for all folders, although there is no lock file.
export TF_PLUGIN_CACHE_DIR="$work/providers" TF_PLUGIN_CACHE_MAY_BREAK_DEPENDENCY_LOCK_FILE=1
export TF_IN_AUTOMATION=1 TF_INPUT=0 TF_CLI_ARGS=-no-color

terraform fmt -check -recursive -diff

# In a copy, so that nothing is left among the sources. A module is valid by itself, too.
copy=$(mktemp -d "$work/copy.XXXXXX")
trap 'rm -rf "$copy"' EXIT
cp -R . "$copy"
for folder in "$copy" "$copy/bootstrap" "$copy"/modules/*/; do
    terraform -chdir="$folder" init -backend=false >"$copy/init.log" || { cat "$copy/init.log" >&2; exit 1; }
    terraform -chdir="$folder" validate
done
# Plans are computed while the apply waits.
{
    terraform -chdir="$copy" test
    for environment in dev prod; do
        terraform -chdir="$copy" test -test-directory=tests/environments -var-file="environments/$environment.tfvars"
    done
} >"$copy/plans.log" 2>&1 &
plans=$!
trap 'kill "$plans" 2>/dev/null || true; wait; rm -rf "$copy"' EXIT

cd ..
cargo nextest run --workspace --test deployed -E 'test(terraform)'
wait "$plans" || { cat "$copy/plans.log" >&2; exit 1; }
grep '^Success!' "$copy/plans.log"
if docker info >/dev/null 2>&1; then
    # Beforehand: the test's time is bounded.
    PSP_CARD_KEYS=- PSP_DATABASE_PASSWORD=- docker compose build
    cargo nextest run --workspace --test deployed -E 'test(containers)'
else
    echo "NOT TESTED: docker-compose.yml in containers: no Docker engine answers" >&2
fi
