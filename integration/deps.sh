#!/bin/sh
# Makes sure that Debian packages are installed: installs them when root, names them otherwise.
# Usage: deps.sh PACKAGE...
set -eu

missing=
for package in "$@"; do
    if ! command -v dpkg-query >/dev/null; then
        # Not Debian: the names are a hint, and what is missing shows where it is used.
        exit 0
    fi
    status=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
    [ "$status" = installed ] || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

if [ "$(id -u)" -ne 0 ]; then
    echo "deps: missing Debian packages:$missing" >&2
    echo "deps: install them with: sudo apt-get install$missing" >&2
    exit 1
fi

echo "deps: installing$missing"
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
trap 'rm -f "$log" ${policy:-}' EXIT
# Programs are what is wanted: no registry or container daemon is to be started as a service.
if [ ! -e /usr/sbin/policy-rc.d ]; then
    policy=/usr/sbin/policy-rc.d
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 0755 "$policy"
fi
# shellcheck disable=SC2086 # the list is words
if ! { apt-get update -qq && apt-get install -y -qq --no-install-recommends $missing; } >"$log" 2>&1 </dev/null; then
    tail -n 20 "$log" >&2
    echo "deps: apt-get could not install:$missing" >&2
    echo "deps: mend the package sources (or the network) and run this again" >&2
    exit 1
fi
