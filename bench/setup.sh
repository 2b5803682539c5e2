#!/usr/bin/env bash
# Brings what the benchmark needs into its cache: Java 17, Kafka's jars by Maven, the compiled classes, and a Python
# environment with confluent-kafka. Idempotent; the second run takes about a second. Prints shell assignments.
#
# BENCH_CACHE   where it goes (default: bench/ in the project's cache)
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/../scripts/lib.sh"
cache=${BENCH_CACHE:-$cache/bench}
mkdir -p "$cache"
"$root/scripts/setup" build java >&2

# Each step works beside its goal and moves it there when it is whole; its inputs' hash tells when to do it again.
pom=$here/java/pom.xml
jars=$cache/jars-$(sha256sum <"$pom" | cut -c1-12)
if [ ! -d "$jars" ]; then
    log "fetching Kafka's jars"
    work=$(mktemp -d "$cache/jars.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    mvn -B -q -ntp -f "$pom" org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies \
        -DincludeScope=runtime -DoutputDirectory="$work/jars" >"$work/log" 2>&1 || {
        tail -n 30 "$work/log" >&2
        exit 1
    }
    mv -T "$work/jars" "$jars"
fi

sources=("$here"/java/src/main/java/dev/tidegate/bench/*.java)
classes=$cache/classes-$(cat "$pom" "${sources[@]}" | sha256sum | cut -c1-12)
if [ ! -d "$classes" ]; then
    log "compiling the Java side"
    work=$(mktemp -d "$cache/classes.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    javac -Xlint:all -Werror -proc:none -cp "$jars/*" -d "$work/classes" "${sources[@]}" >&2
    mv -T "$work/classes" "$classes"
fi

client=confluent-kafka==2.12.1
python=$cache/python-${client##*==}
if [ ! -x "$python/bin/python" ]; then
    log "installing $client"
    rm -rf "$python.part"
    python3 -m venv "$python.part"
    "$python.part/bin/pip" install -q "$client" >&2
    # The scripts of an environment name its path; only its interpreter is used, which does not.
    mv -T "$python.part" "$python"
fi

printf 'BENCH_CACHE=%q\nBENCH_JARS=%q\nBENCH_CLASSES=%q\nBENCH_PYTHON=%q\n' "$cache" "$jars" "$classes" "$python/bin/python"
