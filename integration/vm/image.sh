#!/bin/sh
# Makes the tests' virtual machine out of Debian packages: its kernel, an initramfs that finds the
# disk, and a root file system with systemd as process 1. Prints the directory they are in.
#
# The directory is named after everything here that goes into it, so it is made once for each version
# of these files. Usage: image.sh CACHE
set -eu

here=$(cd "$(dirname "$0")" && pwd)
cache=$1
suite=bookworm
mirror=http://deb.debian.org/debian
security=http://deb.debian.org/debian-security

key=$(cd "$here" && cat packages image.sh guest/init guest/bosun-test.service | sha256sum | cut -c 1-16)
image=$cache/$key
if [ -e "$image/made" ]; then
    echo "$image"
    exit 0
fi

mkdir -p "$cache"
work=$(mktemp -d "$cache/new-XXXXXX")
trap 'rm -rf "$work"' EXIT
root=$work/root

echo "test-vm: making the virtual machine out of Debian's packages, once" >&2
packages=$(sed 's/#.*//' "$here/packages" | tr -s ' \n' ',')
# The kernel's package wants tools to make an initramfs; its files are all that is needed.
# shellcheck disable=SC2016 # "$1" is the hook's
kernel='cd "$1/tmp" &&
    name=$(apt-cache depends linux-image-cloud-amd64 | sed -n "s/.*Depends: \(linux-image-6.*\)/\1/p") &&
    apt-get download "$name" && dpkg-deb -x ./*.deb kernel &&
    mv kernel/lib/modules "$1/usr/lib/" && mv kernel/boot/* "$1/boot/" && rm -r kernel ./*.deb'
if ! mmdebstrap --mode=root --variant=essential --format=directory \
    --hook-dir=/usr/share/mmdebstrap/hooks/merged-usr \
    --aptopt='APT::Install-Recommends "false"' --aptopt='APT::Sandbox::User "root"' \
    --dpkgopt=force-unsafe-io --dpkgopt='path-exclude=/usr/share/man/*' \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
    --include="$packages" --customize-hook="$kernel" "$suite" "$root" \
    "deb $mirror $suite main" "deb $mirror $suite-updates main" \
    "deb $security $suite-security main" >"$work/log" 2>&1 </dev/null; then
    tail -n 20 "$work/log" >&2
    echo "test-vm: mmdebstrap could not make the root file system from $mirror" >&2
    exit 1
fi

# Units that a machine without terminals, users and hardware does not need; without udev, devtmpfs
# has the devices.
for unit in systemd-udevd.service systemd-udev-trigger.service systemd-udevd-control.socket \
    systemd-udevd-kernel.socket systemd-logind.service getty.target systemd-binfmt.service \
    systemd-random-seed.service systemd-update-utmp.service systemd-update-utmp-runlevel.service \
    systemd-user-sessions.service systemd-pcrphase.service systemd-pcrphase-sysinit.service \
    systemd-journal-flush.service systemd-machine-id-commit.service \
    systemd-ask-password-console.path systemd-ask-password-wall.path timers.target \
    proc-sys-fs-binfmt_misc.automount sys-kernel-debug.mount sys-kernel-tracing.mount \
    sys-kernel-config.mount sys-fs-fuse-connections.mount systemd-repart.service; do
    ln -sf /dev/null "$root/etc/systemd/system/$unit"
done
# Profiles of programs that are not here; the tests bring theirs.
find "$root/etc/apparmor.d" -maxdepth 1 -type f -delete
# With an id it is no first boot, which would look at every unit.
echo 0123456789abcdef0123456789abcdef >"$root/etc/machine-id"
echo bosun-test >"$root/etc/hostname"
echo '127.0.0.1 localhost bosun-test' >"$root/etc/hosts"
echo 'nameserver 127.0.0.1' >"$root/etc/resolv.conf"
install -m 0644 "$here/guest/bosun-test.service" "$root/etc/systemd/system/"
ln -s ../bosun-test.service "$root/etc/systemd/system/multi-user.target.wants/"

release=$(ls "$root/usr/lib/modules")
chroot "$root" depmod "$release"
mv "$root/boot/vmlinuz-$release" "$work/vmlinuz"
rm -rf "${root:?}/boot"

# Enough of an initramfs: the disk's and the output's modules in the order of their needs.
initramfs=$work/initramfs
mkdir -p "$initramfs/bin" "$initramfs/dev" "$initramfs/modules" "$initramfs/root"
cp "$root/usr/bin/busybox" "$initramfs/bin/"
install -m 0755 "$here/guest/init" "$initramfs/init"
for module in virtio_pci virtio_blk virtio_console; do
    chroot "$root" modprobe --set-version "$release" --show-depends "$module"
done | awk '$1 == "insmod" && !seen[$2]++ { print $2 }' >"$work/modules"
while read -r module; do
    cp "$root$module" "$initramfs/modules/"
    basename "$module" >>"$initramfs/modules/order"
done <"$work/modules"
(cd "$initramfs" && find . | bin/busybox cpio -o -H newc 2>/dev/null) >"$work/initrd"

mke2fs -qF -t ext4 -d "$root" "$work/disk" 4G >/dev/null
rm -rf "$root" "$initramfs" "$work/modules"
touch "$work/made"
# Somebody else may have made it meanwhile; theirs is the same.
mv -T "$work" "$image" 2>/dev/null || [ -e "$image/made" ]
# What earlier versions of these files made.
find "$cache" -mindepth 1 -maxdepth 1 -type d ! -name "$key" -mmin +60 -exec rm -rf {} +
echo "$image"
