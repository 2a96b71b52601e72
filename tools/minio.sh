#!/usr/bin/env bash
# Builds MinIO into .bin/minio, at the version that the tests run against, once. Takes some minutes the first time.
#
#   tools/minio.sh       prints the binary's path
#
# Needs nothing but Go. A stamp file beside the binary says its version.
set -euo pipefail

version=v0.0.0-20260212201848-7aac2a2c5b7c
root=$(cd "$(dirname "$0")/.." && pwd)
bin="$root/.bin/minio"
stamp="$root/.bin/minio.version"

have() { [[ -x $bin && -f $stamp && $(<"$stamp") == "$version" ]]; }

mkdir -p "$root/.bin"
if ! have && command -v flock >/dev/null; then
  exec 9>"$root/.bin/minio.lock" # two test packages may want it at once
  flock 9
fi
if ! have; then
  work=$(mktemp -d "$root/.bin/minio.XXXXXX")
  trap 'rm -rf "$work"' EXIT
  echo "building MinIO $version into .bin" >&2
  (cd "$work" && GOBIN="$work" GOFLAGS='' GOWORK=off CGO_ENABLED=0 go install "github.com/minio/minio@$version")
  mv "$work/minio" "$bin"
  printf '%s\n' "$version" >"$stamp"
fi
echo "$bin"
