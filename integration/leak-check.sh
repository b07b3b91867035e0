#!/bin/sh
# Runs a command and fails when it leaves something of bosun's on the machine that was not there
# before: mounts, cgroups, network namespaces, interfaces, nftables tables, processes, directories.
# Usage: leak-check.sh COMMAND ARGUMENT...
set -eu

snapshot() {
    awk '/bosun/ { print "mount " $4 " on " $5 }' /proc/self/mountinfo
    find /sys/fs/cgroup -maxdepth 4 -type d -name '*bosun*' -printf 'cgroup %p\n' 2>/dev/null || true
    ls /run/netns 2>/dev/null | sed -n '/bosun/s/^/netns /p'
    ip -o link show 2>/dev/null | awk -F': ' '$2 ~ /^(bosun|bt|bd|veth)/ { print "interface " $2 }'
    nft list tables 2>/dev/null | sed -n '/bosun/p' || true
    # One that has ended and waits for init to notice is not left behind.
    ps -eo stat,comm,args --no-headers |
        awk '$1 !~ /^Z/ && ($2 == "bosund" || $2 == "bosun-shim") { $1 = "process"; $2 = ""; print }'
    # The default root of bosun-oci stays, empty, as runc's does: podman names no other.
    find /tmp /run -maxdepth 1 -name 'bosun*' ! \( -name bosun-oci -empty \) -printf 'file %p\n' 2>/dev/null || true
}

before=$(mktemp) after=$(mktemp)
trap 'rm -f "$before" "$after"' EXIT
snapshot | sort >"$before"
"$@"
snapshot | sort >"$after"
if left=$(comm -13 "$before" "$after") && [ -n "$left" ]; then
    echo 'leak check: the run left behind:' >&2
    echo "$left" >&2
    exit 1
fi
