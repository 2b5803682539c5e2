# What the scripts of this folder and of docker/ share. Sourced, not run.

set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

# Some machines start a job without HOME.
: "${HOME:=$(getent passwd "$(id -u)" | cut -d: -f6)}"
export HOME

# Everything that is downloaded or built lies here, outside of the checkout, so that a fresh clone is fast.
cache=${TIDEGATE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/tidegate}

# rustup puts cargo here; a shell that was opened before does not know it.
PATH=$PATH:$HOME/.cargo/bin

log() { echo "${0##*/}: $*" >&2; }

fail() {
    log "$*"
    exit 1
}

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        fail "needs root for: $*"
    fi
}

is_installed() { dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null | grep -qx installed; }

# install_packages NAME…: installs the Debian packages that are missing; silent where none is.
install_packages() {
    local missing=() name
    for name; do is_installed "$name" || missing+=("$name"); done
    [ ${#missing[@]} = 0 ] && return
    command -v apt-get >/dev/null ||
        fail "needs the equivalent of these Debian packages, and there is no apt-get: ${missing[*]}"
    log "installing ${missing[*]}"
    local apt=(apt-get -qq -y -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3) output
    output=$(as_root "${apt[@]}" update 2>&1 &&
        as_root env DEBIAN_FRONTEND=noninteractive "${apt[@]}" install --no-install-recommends "${missing[@]}" 2>&1) || {
        tail -n 20 <<<"$output" >&2
        fail "apt-get could not install: ${missing[*]}"
    }
}

# need_command COMMAND PACKAGE: installs the package where the command is missing.
need_command() { command -v "$1" >/dev/null || install_packages "$2"; }

# usable_go: prints the Go of this machine if it is 1.21 or newer; such a one fetches a newer one by itself where a module asks for it.
usable_go() {
    local go found
    for go in "$(command -v go || true)" /usr/local/go/bin/go; do
        [ -x "$go" ] || continue
        found=$(GOTOOLCHAIN=local "$go" env GOVERSION 2>/dev/null) || continue
        [ "$(printf '%s\n' 1.21 "${found#go}" | sort -V | head -n 1)" = 1.21 ] || continue
        echo "$go"
        return 0
    done
    return 1
}

# need_free_gib GIB FOLDER: fails early rather than in the middle of a build.
need_free_gib() {
    mkdir -p "$2"
    local free
    free=$(($(df --output=avail -k "$2" | tail -n 1) / 1024 / 1024))
    [ "$free" -ge "$1" ] || fail "$2 has $free GiB free, needs $1; free some or set XDG_CACHE_HOME to another disk"
}
