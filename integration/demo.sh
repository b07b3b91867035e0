#!/bin/bash
# The main job, shown: a web server over the host's own tree lives through the death of the daemon.
# A daemon of its own, published on 127.0.0.1 only; nothing is left behind, whatever happens.
set -euo pipefail
cd "$(dirname "$0")/.."

if [ "$(id -u)" -ne 0 ]; then
    echo 'make run: containers need root: run it as root, or with sudo' >&2
    exit 1
fi

bin=$PWD/bin
name=bosun-demo-$$
bridge=bd$$
directory=$(mktemp -d /tmp/bosun-demo-XXXXXX)
export BOSUN_ADDRESS=unix://$directory/s/bosun.sock
ip_forward=$(cat /proc/sys/net/ipv4/ip_forward)
daemon=
finished=no

bold() { printf '\n\033[1m%s\033[0m\n' "$*"; }
say() { printf '  %s\n' "$*"; }
# Shows a command line and what it prints.
show() {
    printf '  \033[32m$ ctl %s\033[0m\n' "$1"
    shift
    "$bin/ctl" "$@" 2>&1 | sed 's/^/  /'
}
ctl() { "$bin/ctl" "$@"; }

# until WHAT SECONDS COMMAND...: polls, and gives up by name.
until_true() {
    local what=$1 rounds=$(($2 * 20))
    shift 2
    until "$@" >/dev/null 2>&1; do
        rounds=$((rounds - 1))
        if [ "$rounds" -le 0 ]; then
            echo "make run: waited in vain for $what; the daemon's log:" >&2
            tail -n 20 "$directory/daemon.log" >&2 || true
            exit 1
        fi
        sleep 0.05
    done
}

start_daemon() {
    "$bin/bosund" --root "$directory/r" --state "$directory/s" --cgroup-prefix "$name" \
        --bridge "$bridge" --subnet "$subnet" 2>>"$directory/daemon.log" </dev/null &
    daemon=$!
    disown "$daemon"
    until_true 'the daemon to serve' 20 "$bin/ctl" version
}

kill_daemon() {
    kill -9 "$daemon"
    until_true 'the end of the daemon' 5 gone "$daemon"
}
gone() { ! kill -0 "$1" 2>/dev/null; }
alive() { kill -0 "$1" 2>/dev/null; }

fetch() {
    python3 - "$1" <<'PYTHON'
import sys, urllib.request, urllib.error
try:
    print(urllib.request.urlopen(sys.argv[1], timeout=5).status)
except urllib.error.HTTPError as error:
    print(error.code)
PYTHON
}

# The cgroups of this demo in every hierarchy, the deepest first.
cgroups() { find /sys/fs/cgroup -depth -type d \( -path "*/$name/*" -o -path "*/$name-shims/*" -o -name "$name" -o -name "$name-shims" \) 2>/dev/null; }

clean_up() {
    local status=$?
    trap - EXIT INT TERM
    set +e
    if [ -n "$daemon" ] && alive "$daemon"; then
        ids=$(ctl ps -a -q 2>/dev/null)
        # shellcheck disable=SC2086 # the list is words
        [ -z "$ids" ] || ctl rm -f $ids >/dev/null 2>&1
        kill "$daemon" 2>/dev/null
        for _ in $(seq 100); do alive "$daemon" || break; sleep 0.05; done
        kill -9 "$daemon" 2>/dev/null
    fi
    # What only a demonstration that broke off can have left.
    cgroups | while read -r group; do
        xargs -r kill -9 <"$group/cgroup.procs" 2>/dev/null
    done
    for _ in $(seq 40); do
        cgroups | while read -r group; do rmdir "$group" 2>/dev/null; done
        [ -n "$(cgroups)" ] || break
        sleep 0.05
    done
    ip link delete "$bridge" 2>/dev/null
    nft list tables 2>/dev/null | awk -v name="bosun-$bridge" '$3 == name { print "delete table", $2, $3 }' | nft -f - 2>/dev/null
    # The daemon leaves forwarding on, because others may have come to rely on it; nobody has here.
    echo "$ip_forward" >/proc/sys/net/ipv4/ip_forward
    rm -rf "$directory" "/run/bosun-bridge-$bridge-"*.lock
    if [ "$finished" = yes ]; then
        report_leftovers
    else
        [ "$status" -ne 0 ] || status=1
        echo "make run: broke off; everything of it has been removed" >&2
    fi
    exit "$status"
}

report_leftovers() {
    local left
    left=$(
        grep -F "$directory" /proc/self/mountinfo
        cgroups
        ip -o link show | grep -w "$bridge"
        nft list tables 2>/dev/null | grep -F "$bridge"
        pgrep -af "$directory"
        ls -d "$directory" 2>/dev/null
    )
    if [ -n "$left" ]; then
        echo 'make run: left behind:' >&2
        echo "$left" >&2
        exit 1
    fi
    say 'No mount, cgroup, interface, table, process or file is left.'
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# A subnet and a port that nobody uses here.
free() {
    python3 - <<'PYTHON'
import random, socket, subprocess
routes = subprocess.run(["ip", "-4", "route", "show", "table", "all"], capture_output=True, text=True).stdout
second = next(n for n in random.sample(range(100, 250), 150) if f" 10.{n}." not in " " + routes)
for port in [8000, *range(8001, 9000)]:
    with socket.socket() as probe:
        try:
            probe.bind(("0.0.0.0", port))
        except OSError:
            continue
    break
print(f"10.{second}.0.0/24 {port}")
PYTHON
}
read -r subnet port < <(free)

bold "1. A web server over this machine's own tree, copy on write"
start_daemon
[ "$port" = 8000 ] || say "(port 8000 is taken here, so it is published on $port)"
show "run -d -p 127.0.0.1:$port:8000 -t -w /usr/share/doc --name web --rootfs / /usr/bin/python3 -m http.server" \
    run -d -p "127.0.0.1:$port:8000" -t -w /usr/share/doc --name web --rootfs / /usr/bin/python3 -m http.server
answers() { [ "$(fetch "http://127.0.0.1:$port/")" = 200 ]; }
until_true 'the web server to answer' 20 answers
show ps ps
say "GET http://127.0.0.1:$port/ → $(fetch "http://127.0.0.1:$port/")"

bold '2. A second container, which will end while nobody looks'
show "run -d --name second --net none --rootfs / /bin/sh -c 'sleep 2; echo the last line; exit 42'" \
    run -d --name second --net none --rootfs / /bin/sh -c 'sleep 2; echo the last line; exit 42'

bold '3. kill -9 the daemon'
before=$(ctl inspect --format '{{.State.Pid}}' web)
second=$(ctl inspect --format '{{.State.Pid}}' second)
started=$(awk '{ print $22 }' "/proc/$before/stat")
say "pid of the web server: $before (started at tick $started)"
say "pid of the daemon:     $daemon, and now it is gone"
kill_daemon
since=$(date -u +%Y-%m-%dT%H:%M:%S.%NZ)
say "GET http://127.0.0.1:$port/nobody-is-watching → $(fetch "http://127.0.0.1:$port/nobody-is-watching")"
say "GET http://127.0.0.1:$port/bash/ → $(fetch "http://127.0.0.1:$port/bash/")"
until_true 'the end of the second container' 20 gone "$second"
say "the second container has ended meanwhile"

bold '4. Start the daemon again'
start_daemon
after=$(ctl inspect --format '{{.State.Pid}}' web)
say "pid of the web server: $after (started at tick $(awk '{ print $22 }' "/proc/$after/stat"))"
[ "$before" = "$after" ] || { echo "make run: the pid changed from $before to $after" >&2; exit 1; }
show 'ps -a' ps -a
say 'Logged while the daemon was dead:'
show 'logs --since … web' logs --since "$since" web
ctl logs web | grep -q nobody-is-watching || { echo 'make run: a line that was logged meanwhile is missing' >&2; exit 1; }
show 'logs second' logs second
show "inspect --format '{{.State.Status}} {{.State.ExitCode}} {{.State.FinishedAt}}' second" \
    inspect --format '{{.State.Status}} {{.State.ExitCode}} {{.State.FinishedAt}}' second
[ "$(ctl wait second)" = 42 ] || { echo 'make run: the exit code 42 is lost' >&2; exit 1; }
show "exec web /bin/sh -c 'echo exec works again, as \$(id -un) on \$(hostname)'" \
    exec web /bin/sh -c 'echo exec works again, as $(id -un) on $(hostname)'

bold '5. Stop and remove'
show 'stop -t 1 web' stop -t 1 web
# `wait` ends with the container's own code.
show 'wait web' wait web || [ $? -eq 137 ]
show 'rm web second' rm web second
finished=yes
bold 'Done.'
