#!/bin/sh
# Gets the jars of Kafka 4.3.1 from Maven Central into target/testbed/kafka/lib. Can be repeated; does nothing where they are there.
set -eu
here=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd)
base=$here/../../../target/testbed/kafka
if [ -e "$base/lib/.4.3.1" ]; then exit 0; fi
for tool in mvn java; do
    command -v "$tool" >/dev/null || { echo "fetch.sh: $tool is missing: apt-get install maven default-jre-headless" >&2; exit 1; }
done
mkdir -p "$base"
# Into a folder of its own first, so that a broken download leaves nothing that looks whole.
part=$(mktemp -d "$base/lib.XXXXXX")
trap 'rm -rf "$part"' EXIT
chmod 755 "$part"
# A failed transfer is remembered in Maven's repository: without --update-snapshots another try asks nobody.
"$here/../../../scripts/download" "Kafka's jars" \
    mvn --batch-mode --quiet --update-snapshots --file "$here/pom.xml" dependency:copy-dependencies -DoutputDirectory="$part"
touch "$part/.4.3.1"
rm -rf "$base/lib"
mv "$part" "$base/lib"
