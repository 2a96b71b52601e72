#!/usr/bin/env bash
# Installs the clients that interop drives: kcat from Debian, the rest into .bin/. Does nothing that is done already.
set -euo pipefail

cd "$(dirname "$0")/../.."
bin=$PWD/.bin/interop
mkdir -p "$bin"

if ! command -v kcat >/dev/null; then
  sudo=()
  [[ $(id -u) == 0 ]] || sudo=(sudo -n)
  DEBIAN_FRONTEND=noninteractive "${sudo[@]}" apt-get install -qy --no-install-recommends kcat
fi

# once NAME COMMAND...: runs the command unless a run with the same words has finished before.
once() {
  local name=$1 stamp
  shift
  stamp="$bin/$name.$(sha256sum <<<"$*" | cut -c1-12).done"
  [[ -f $stamp ]] && return 0
  rm -rf "${bin:?}/$name"
  "$@"
  touch "$stamp"
}

venv() { # name packages...
  local name=$1
  shift
  python3 -m venv "$bin/$name"
  "$bin/$name/bin/pip" install -q "$@"
}

npm_packages() { # name packages...
  local name=$1
  shift
  mkdir -p "$bin/$name"
  npm install --silent --no-fund --no-audit --prefix "$bin/$name" "$@"
}

codecs=(python-snappy==0.7.3 lz4==4.4.5 zstandard==0.25.0 crc32c==2.8)
once confluent venv confluent confluent-kafka==2.16.1
once kafka-python-3 venv kafka-python-3 kafka-python==3.0.12 "${codecs[@]}"
once kafka-python-2 venv kafka-python-2 kafka-python==2.0.2 "${codecs[@]}"
once aiokafka venv aiokafka aiokafka==0.14.0 cramjam==2.11.0
once kafkajs npm_packages kafkajs kafkajs@2.2.4 kafkajs-snappy@1.1.0 kafkajs-lz4@1.2.1

for version in 2.0.1 2.8.2 3.9.2 4.3.1; do
  tools/kafka.sh "$version" >/dev/null
done

go build -C test/interop/goclients -o "$bin/goclients" .
