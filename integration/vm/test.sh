#!/bin/sh
# Runs tests in a virtual machine that has what this machine may lack: cgroup v2 alone, systemd,
# AppArmor, and a kernel of its own. It is emulated, so it needs no privilege of the processor, and
# takes ten times as long as the same tests here.
#
# Usage: test.sh core|all [TEST-PROGRAM [ARGUMENT...]]
# Needs what `make build` made in bin/. Everything made here is below target/vm.
set -eu
cd "$(dirname "$0")/../.."
. integration/vm/boot

set=$1
shift
only=${1-}
[ $# -eq 0 ] || shift
limit=${TEST_VM_LIMIT:-3000}
cache=target/vm
if [ "$(id -u)" -ne 0 ]; then
    echo 'test-vm: the files of a root file system belong to root: run it as root, or with sudo' >&2
    exit 1
fi
image=$(integration/vm/image.sh "$PWD/$cache")
run=$(mktemp -d "$cache/run-XXXXXX")
machine=
trap '[ -z "$machine" ] || kill $machine 2>/dev/null || true; rm -rf "$run"' EXIT
trap 'exit 130' INT TERM

# The table's lines, as SET PACKAGE PROGRAM ARGUMENTS.
sed 's/#.*//' integration/vm/tests | awk -v set="$set" -v only="$only" \
    'NF && (set == "all" || set == $1) && (only == "" || only == $3)' >"$run/table"
[ -s "$run/table" ] || { echo "test-vm: no test program $only in integration/vm/tests" >&2; exit 1; }

# All of the workspace, for so the features of dependencies are those of `make test`; of it only the
# test programs of the table.
programs=$(awk '{ print "--test", $3 }' "$run/table" | sort -u)
# shellcheck disable=SC2086 # words
"${CARGO:-cargo}" test --locked --release --workspace --no-run --message-format=json-render-diagnostics $programs \
    >"$run/artifacts"

# The second disk: the repository as far as tests need it, at the places where they look.
disk=$run/disk
mkdir -p "$disk/vm/tests"
cp -r --parents bin daemon/dist "$disk/"
cp integration/vm/guest/run "$disk/vm/"
make --no-print-directory install DESTDIR="$disk/vm/installed" >/dev/null
python3 - "$run" "$disk" "$@" <<'PYTHON'
import json, os, shutil, sys

run, disk, *arguments = sys.argv[1:]
built = {}
for line in open(f"{run}/artifacts"):
    artifact = json.loads(line)
    if artifact.get("executable") and artifact["target"]["name"] == "bosun-oci" and not artifact["profile"]["test"]:
        # Where the tests of its own package look for it.
        place = f"{disk}/{os.path.relpath(artifact['executable'])}"
        os.makedirs(os.path.dirname(place), exist_ok=True)
        shutil.copy(artifact["executable"], place)
    if artifact.get("executable") and artifact["profile"]["test"]:
        directory = os.path.relpath(os.path.dirname(artifact["manifest_path"]))
        package = artifact["package_id"].split("#")[-1].split("@")[0]
        package = package if not package[:1].isdigit() else os.path.basename(directory)
        built[package, artifact["target"]["name"]] = (directory, artifact["executable"])
with open(f"{disk}/vm/plan", "w") as plan:
    lines = {}
    for line in open(f"{run}/table"):
        _, package, program, *filters = line.split()
        # Arguments of the caller's own stand for all lines of their program.
        lines[package, program, *(arguments or filters)] = None
    for package, program, *words in lines:
        directory, executable = built[package, program]
        name = f"{package}-{program}"
        shutil.copy(executable, f"{disk}/vm/tests/{name}")
        os.makedirs(f"{disk}/{directory}", exist_ok=True)
        print(directory, name, *words, file=plan)
PYTHON
mke2fs -qF -t ext4 -O ^has_journal -d "$disk" "$run/tests" 1G >/dev/null

boot "$image" "$run" "$limit" "bosun.top=$PWD bosun.threads=${TEST_VM_THREADS:-3}" "$run/tests,readonly=on"
