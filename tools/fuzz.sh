#!/usr/bin/env bash
# Runs every fuzz target of the module for a while, one after the other.
#
#   tools/fuzz.sh [DURATION]    default 10s for each target
set -uo pipefail

duration=${1:-10s}
cd "$(dirname "$0")/.."
log=$(mktemp)
trap 'rm -f "$log"' EXIT

passed=0
failed=0
while IFS= read -r line; do
  file=${line%%:*}
  name=$(sed -E 's/.*func (Fuzz[A-Za-z0-9_]*)\(.*/\1/' <<<"$line")
  package=./$(dirname "$file")
  if go test -run '^$' -fuzz "^$name\$" -fuzztime "$duration" "$package" >"$log" 2>&1; then
    passed=$((passed + 1))
    echo "ok    $package $name ($(grep -oE 'execs: [0-9]+' "$log" | tail -1))"
  else
    failed=$((failed + 1))
    echo "FAIL  $package $name"
    cat "$log"
  fi
done < <(git ls-files --cached --others --exclude-standard '*_test.go' | xargs grep -EH '^func Fuzz[A-Za-z0-9_]*\(')

echo "$passed fuzz targets passed, $failed failed"
[[ $failed == 0 && $passed -gt 0 ]]
