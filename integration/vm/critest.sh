#!/bin/sh
# Runs critest, the validation suite of kubernetes-sigs/cri-tools, in the virtual machine of the tests,
# beside bosund as a service: control groups v2 by systemd, AppArmor, networks by CNI. Suite and images are
# the caller's own (docs/kubernetes.md says which).
#
# Usage: critest.sh CRITEST REGISTRY [ARGUMENT...]
# CRITEST is the program, linked statically; REGISTRY the directory in which a docker-registry keeps the
# images, by the suite's names without their host. ARGUMENTs are more of critest's (-ginkgo.focus WORDS).
# Needs what `make build` made in bin/. Leaves one.xml, two.xml (streams over WebSocket) and the daemon's
# log in target/critest.
set -eu
cd "$(dirname "$0")/../.."
. integration/vm/boot

critest=$1
registry=$2
shift 2
if [ "$(id -u)" -ne 0 ]; then
    echo 'critest-vm: the files of a root file system belong to root: run it as root, or with sudo' >&2
    exit 1
fi
[ -x "$critest" ] || { echo "critest-vm: no program: '$critest' (CRITEST=FILE)" >&2; exit 1; }
[ -d "$registry/docker/registry/v2" ] || {
    echo "critest-vm: no storage of a registry: '$registry' (REGISTRY=DIRECTORY, above docker/)" >&2
    exit 1
}
cache=target/vm
result=target/critest
image=$(integration/vm/image.sh "$PWD/$cache")
run=$(mktemp -d "$cache/run-XXXXXX")
machine=
trap '[ -z "$machine" ] || kill $machine 2>/dev/null || true; rm -rf "$run"' EXIT
trap 'exit 130' INT TERM

disk=$run/disk
mkdir -p "$disk/vm" "$run/empty"
cp integration/vm/guest/critest "$disk/vm/run"
cp "$critest" "$disk/vm/critest"
cp -a "$registry" "$disk/vm/registry"
printf '%s\n' "$@" >"$disk/vm/arguments"
make --no-print-directory install DESTDIR="$disk/vm/installed" >/dev/null
mke2fs -qF -t ext4 -O ^has_journal -d "$disk" "$run/suite" 1G >/dev/null
mke2fs -qF -t ext4 -d "$run/empty" "$run/reports" 256M >/dev/null

passed=true
boot "$image" "$run" "${TEST_VM_LIMIT:-7200}" '' "$run/suite,readonly=on" "$run/reports" || passed=false
mkdir -p "$result"
for file in one.xml two.xml bosund.log; do
    rm -f "$result/$file"
    debugfs -R "dump /$file $result/$file" "$run/reports" 2>/dev/null
done
echo "critest-vm: the reports are in $result"
$passed
