#!/bin/sh
# All tests but the lints. Those of the infrastructure wait for minutes at a time, so they run beside the others.
set -u
cd "$(dirname "$0")/.." || exit
log=target/infrastructure.log

infrastructure/test.sh >"$log" 2>&1 &
infrastructure=$!
trap 'kill "$infrastructure" 2>/dev/null' EXIT INT TERM

failed=0
target/debug/with-servers cargo nextest run --workspace --no-fail-fast "$@" || failed=1
cargo test --workspace --doc || failed=1
wait "$infrastructure" || failed=1
cat "$log"
exit "$failed"
