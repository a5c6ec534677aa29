#!/bin/sh
# Installs what receivers of webhooks verify with, in Python and in JavaScript, for the tests: into the project's own
# target/webhooks-python and target/webhooks-node. Does nothing for what is there.
set -eu
cd "$(dirname "$0")/../.."

# Installs Debian packages, or says which are missing.
install() {
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "$@"
    else
        echo "The tests need these on this machine: $*" >&2
        exit 1
    fi
}

wanted=crates/psp-webhooks/tests/standard_webhooks
venv=target/webhooks-python
if ! cmp -s "$wanted/requirements.txt" "$venv/installed.txt"; then
    command -v python3 >/dev/null || install python3 python3-venv
    mkdir -p target
    python3 -m venv --clear "$venv" || { install python3-venv && python3 -m venv --clear "$venv"; }
    "$venv/bin/pip" install --quiet --disable-pip-version-check --requirement "$wanted/requirements.txt"
    cp "$wanted/requirements.txt" "$venv/installed.txt"
fi

node=target/webhooks-node
if ! cmp -s "$wanted/package-lock.json" "$node/installed.json"; then
    command -v npm >/dev/null || install nodejs npm
    mkdir -p "$node"
    cp "$wanted/package.json" "$wanted/package-lock.json" "$node"
    npm ci --prefix "$node" --ignore-scripts --no-audit --no-fund --silent
    cp "$wanted/package-lock.json" "$node/installed.json"
fi
