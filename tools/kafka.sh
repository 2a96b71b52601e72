#!/usr/bin/env bash
# Fills .bin/kafka-VERSION/libs with the jars of one Apache Kafka version, from Maven, once.
#
#   tools/kafka.sh VERSION       broker, client and command line tools; 2.0.1: the client alone
#
# Prints the libs folder. Needs mvn and a JDK. A finished folder has a stamp file beside it and is not touched again.
set -euo pipefail

version=${1:?usage: tools/kafka.sh VERSION}
root=$(cd "$(dirname "$0")/.." && pwd)
dest="$root/.bin/kafka-$version"
stamp="$dest/.complete-1" # raise the number when the list of artifacts changes

if [[ -f $stamp ]]; then
  echo "$dest/libs"
  exit 0
fi

dependency() { # group artifact version
  printf '<dependency><groupId>%s</groupId><artifactId>%s</artifactId><version>%s</version></dependency>\n' "$1" "$2" "$3"
}

artifacts() {
  case $version in
    2.0.*)
      dependency org.apache.kafka kafka-clients "$version"
      dependency org.slf4j slf4j-simple 1.7.25
      ;;
    2.* | 3.*)
      dependency org.apache.kafka kafka_2.13 "$version"
      dependency org.apache.kafka kafka-tools "$version"
      dependency org.slf4j slf4j-reload4j 1.7.36
      ;;
    *)
      dependency org.apache.kafka kafka_2.13 "$version"
      dependency org.apache.kafka kafka-tools "$version"
      dependency org.apache.logging.log4j log4j-core 2.25.3
      dependency org.apache.logging.log4j log4j-slf4j-impl 2.25.3
      ;;
  esac
}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat >"$work/pom.xml" <<POM
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>tierlog.tools</groupId>
  <artifactId>kafka-jars</artifactId>
  <version>1</version>
  <dependencies>
$(artifacts)
  </dependencies>
</project>
POM

mkdir -p "$dest"
rm -rf "$dest/libs"
tries=3
for ((try = 1; ; try++)); do
  if mvn -B -q -f "$work/pom.xml" dependency:copy-dependencies \
    -DincludeScope=runtime -DoutputDirectory="$work/libs" >"$work/log" 2>&1; then
    break
  fi
  if ((try == tries)); then
    cat "$work/log" >&2
    exit 1
  fi
done
# Bindings of another log4j or slf4j in the same class path print warnings into the tools' output.
rm -f "$work"/libs/slf4j-log4j12-*.jar "$work"/libs/log4j-1.2.*.jar
mv "$work/libs" "$dest/libs"
touch "$stamp"
echo "$dest/libs"
