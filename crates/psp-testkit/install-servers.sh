#!/bin/sh
# Installs what the tests' servers need: where no Docker engine answers, PostgreSQL's server binaries, and moto; where Terraform
# is, moto, which stands in for all of AWS. moto is in the project's own target/test-venv. Does nothing for what is there.
set -eu
cd "$(dirname "$0")/../.."

given=false docker=false
if [ -n "${PSP_TEST_DATABASE_URL:-}" ] && [ -n "${PSP_TEST_SQS_ENDPOINT:-}" ]; then given=true; fi
if command -v docker >/dev/null && docker info >/dev/null 2>&1; then docker=true; fi

# Installs Debian packages, or says which are missing.
install() {
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "$@"
    else
        echo "The tests need a Docker engine, or these on this machine: $*" >&2
        exit 1
    fi
}

if ! $given && ! $docker && ! command -v initdb >/dev/null && ! ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1; then
    install postgresql
fi

if { $given || $docker; } && ! command -v terraform >/dev/null; then exit 0; fi
wanted=crates/psp-testkit/requirements.txt
venv=target/test-venv
if ! cmp -s "$wanted" "$venv/installed.txt"; then
    command -v python3 >/dev/null || install python3 python3-venv
    mkdir -p target
    python3 -m venv --clear "$venv" || { install python3-venv && python3 -m venv --clear "$venv"; }
    "$venv/bin/pip" install --quiet --disable-pip-version-check --requirement "$wanted"
    cp "$wanted" "$venv/installed.txt"
fi
