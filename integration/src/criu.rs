//! A program in the place of criu, for machines whose kernel criu can't work with: the daemon alone sees it.
//! It answers as criu does, and writes one image: what a container had counted to.

use crate::daemon::Settings;

const CRIU: &str = "/usr/sbin/criu";

/// What a container runs: it counts, so that one that stands still is told from one that goes on.
pub const COUNT: &str =
    "i=0; while :; do i=$((i+1)); echo $i >/count.new; mv /count.new /count; done";

/// How it waits before it answers.
const WAIT: &str = "time.sleep(0.3)";

/// A daemon with it.
#[must_use]
pub fn with_stand_in(settings: Settings) -> Settings {
    with_one_that_waits(WAIT, settings)
}

/// The same, of one that waits in another way: a statement of Python's.
#[must_use]
pub fn with_one_that_waits(how: &str, settings: Settings) -> Settings {
    settings.in_place_of(CRIU, &STAND_IN.replace(WAIT, how))
}

/// Its image is what the container had counted to when it was asked; of that it makes a container that goes
/// on from there, as criu does: a sibling of its own, in namespaces of its own, in the mounts and the group
/// that were made for it, with the streams that it was given.
const STAND_IN: &str = r#"#!/usr/bin/python3
import ctypes, json, os, platform, socket, time
link = socket.socket(fileno=0)
def fields(data):
    at, found = 0, {}
    def number():
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value
    while at < len(data):
        key = number()
        if key & 7 == 0:
            value = number()
        else:
            size = number()
            value = data[at:at + size]
            at += size
        found.setdefault(key >> 3, []).append(value)
    return found
def varint(value):
    out = b""
    while value > 127:
        out, value = out + bytes([value & 127 | 128]), value >> 7
    return out + bytes([value])
place = lambda number: f"/proc/{os.getppid()}/fd/{options[number][0]}"
request = fields(link.recv(65536))
kind, options = request[1][0], fields(request[2][0])
def dump():
    if os.path.exists(f"/proc/{options[2][0]}/root/refuse"):
        with open(place(17) + "/dump.log", "w") as log:
            log.write("Error (stand-in.c:2): it does not want to\n")
        link.send(b"\x08\x01\x10\x00")
        return
    with open(f"/proc/{options[2][0]}/root/count") as count:
        counted = count.read()
    with open(place(1) + "/count.img", "w") as image:
        image.write(counted)
    with open(place(17) + "/dump.log", "w") as log:
        log.write("all is well\n")
    time.sleep(0.3)
    link.send(b"\x08\x01\x10\x01")
def restore():
    with open(place(1) + "/count.img") as image:
        counted = int(image.read())
    if counted == 0:
        with open(place(17) + "/restore.log", "w") as log:
            log.write("Error (stand-in.c:1): it had not begun to count\n")
        link.send(b"\x08\x02\x10\x00")
        return
    with open(place(1) + "/descriptors.json") as names:
        names = json.load(names)
    given = {}
    for one in options.get(27, []):
        one = fields(one)
        given[one[1][0].decode()] = one[2][0]
    libc = ctypes.CDLL(None, use_errno=True)
    for one in options.get(39, []):
        with open(fields(one)[2][0]) as namespace:
            if libc.setns(namespace.fileno(), 0):
                os._exit(98)
    clone, pivot = {"x86_64": (56, 155), "aarch64": (220, 41)}[platform.machine()]
    NEW_MOUNT, NEW_PID, PARENT, CHILD = 0x20000, 0x20000000, 0x8000, 17
    pid = libc.syscall(clone, NEW_MOUNT | NEW_PID | PARENT | CHILD, 0, 0, 0, 0)
    if pid == 0:
        for number, name in enumerate(names):
            if name in given:
                os.dup2(given[name], number)
        os.chdir("/proc/fs/tree")
        libc.mount(None, b"/", None, 0x4000 | 0x40000, None)
        if libc.syscall(pivot, b".", b".") or libc.umount2(b".", 2):
            os._exit(99)
        script = f"echo from $((i={counted})); COUNT".replace("COUNT", LOOP)
        os.execv("/bin/sh", ["/bin/sh", "-c", script])
    link.send(b"\x08\x02\x10\x01\x22" + bytes([1 + len(varint(pid))]) + b"\x08" + varint(pid))
LOOP = "while :; do i=$((i+1)); echo $i >/count.new; mv /count.new /count; done"
dump() if kind == 1 else restore()
"#;
