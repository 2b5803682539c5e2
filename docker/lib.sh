# Settings that the scripts of this folder share; each can be set from outside. Sourced, not run.
. "$(dirname "${BASH_SOURCE[0]}")/../scripts/lib.sh"

docker_folder=$root/docker
suite=bookworm
base_image=${BASE_IMAGE:-tidegate-base:$suite}
kafka_version=4.3.1
kafka_image=${KAFKA_IMAGE:-tidegate-kafka:$kafka_version}
versitygw_version=1.8.0
s3_image=${S3_IMAGE:-tidegate-s3:$versitygw_version}
service_image=${SERVICE_IMAGE:-tidegate:dev}
prometheus_image=${PROMETHEUS_IMAGE:-tidegate-prometheus:$suite}
# Containers that these scripts start carry it, so that they can be found again.
container_label=org.tidegate.started-by
inputs_label=org.tidegate.inputs

engine_answers() { timeout 10 docker info >/dev/null 2>&1; }

has_image() { docker image inspect "$1" >/dev/null 2>&1; }

# An image carries a hash of what it is made of, and is built again when that changes.
hash_of_inputs() { sha256sum | cut -c1-16; }

is_current() {
    local label
    label=$(docker image inspect -f "{{ index .Config.Labels \"$inputs_label\" }}" "$1" 2>/dev/null) && [ "$label" = "$2" ]
}

# apt_settings FILE: what this host's apt needs to reach its mirror (proxy, retries, date checks), for use in a build.
apt_settings() {
    local dump
    dump=$(apt-config dump 2>/dev/null || true)
    grep -E '^Acquire::(http|https|Retries|Check-Date|Check-Valid-Until|ForceIPv)' <<<"$dump" >"$1" || : >"$1"
}

# build_image TAG HASH DOCKERFILE CONTEXT: says little, unless it fails. BUILD_NETWORK=host where containers on
# Docker's own network cannot reach the Debian mirror.
build_image() {
    local output
    output=$(docker build --network "${BUILD_NETWORK:-default}" --build-arg BASE="$base_image" \
        --label "$inputs_label=$2" -t "$1" -f "$3" "$4" 2>&1) || {
        tail -n 30 <<<"$output" >&2
        fail "could not build $1"
    }
    # The image that had the tag before has none now; only those that these scripts built carry the label.
    docker image prune -f --filter "label=$inputs_label" >/dev/null 2>&1 || true
    log "built $1"
}
