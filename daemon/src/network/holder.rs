//! Who holds a port: `/proc/net` names the socket's inode, `/proc/PID/fd` the process that has it.
//!
//! Only for error messages, after the kernel has refused a port. What can't be found out is said so;
//! it is never guessed.

use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use super::Protocol;

/// `PID 812 (nginx)`, or what is known instead.
pub(super) fn describe(address: Ipv4Addr, port: u16, protocol: Protocol) -> String {
    let Some(inode) = inode(address, port, protocol) else {
        return "a socket that went away meanwhile".to_owned();
    };
    match process(inode) {
        Some((pid, name)) => format!("PID {pid} ({name})"),
        None => format!("a socket (inode {inode}) of a process that can't be seen from here"),
    }
}

/// The socket that collides with a bind to `address:port`.
fn inode(address: Ipv4Addr, port: u16, protocol: Protocol) -> Option<u64> {
    // Of the thread's own network namespace: `/proc/net` is that of the process' first thread.
    let read = |table: &str| fs::read_to_string(format!("/proc/thread-self/net/{table}"));
    let tables = [protocol.to_string(), format!("{protocol}6")];
    let texts: Vec<String> = tables.iter().filter_map(|table| read(table).ok()).collect();
    let sockets = || texts.iter().flat_map(|text| text.lines().skip(1).filter_map(Socket::parse));
    let collides = |socket: &Socket| {
        socket.port == port
            && (socket.address == address
                || socket.address.is_unspecified()
                || address.is_unspecified())
    };
    let mut all = sockets().filter(collides);
    // A listener first: it is the one the user knows by name.
    sockets()
        .filter(collides)
        .find(|socket| socket.state == LISTEN)
        .or_else(|| all.find(|socket| socket.inode != 0))
        .map(|socket| socket.inode)
}

/// TCP_LISTEN of the kernel's `tcp_states.h`.
const LISTEN: u8 = 0x0a;

/// A line of `/proc/net/{tcp,tcp6,udp,udp6}`, see proc_net_tcp.rst of the kernel's documentation.
struct Socket {
    address: Ipv4Addr,
    port: u16,
    state: u8,
    inode: u64,
}

impl Socket {
    fn parse(line: &str) -> Option<Self> {
        let mut fields = line.split_ascii_whitespace();
        let (address, port) = fields.nth(1)?.split_once(':')?;
        let port = u16::from_str_radix(port, 16).ok()?;
        let state = u8::from_str_radix(fields.nth(1)?, 16).ok()?;
        let inode = fields.nth(5)?.parse().ok()?;
        Some(Self { address: parse_address(address)?, port, state, inode })
    }
}

/// Addresses are printed as 32-bit words in the machine's own byte order. An IPv6 socket on `::`
/// takes the port on every IPv4 address too; one on another IPv6 address does not collide.
fn parse_address(hex: &str) -> Option<Ipv4Addr> {
    let mut bytes = Vec::with_capacity(16);
    for start in (0..hex.len()).step_by(8) {
        let word = u32::from_str_radix(hex.get(start..start + 8)?, 16).ok()?;
        bytes.extend_from_slice(&word.to_ne_bytes());
    }
    if let Ok(octets) = <[u8; 4]>::try_from(bytes.as_slice()) {
        return Some(Ipv4Addr::from(octets));
    }
    let address = Ipv6Addr::from(<[u8; 16]>::try_from(bytes.as_slice()).ok()?);
    match address.is_unspecified() {
        true => Some(Ipv4Addr::UNSPECIFIED),
        false => address.to_ipv4_mapped(),
    }
}

/// The first process that has the socket open.
fn process(inode: u64) -> Option<(u32, String)> {
    let pids = fs::read_dir("/proc").ok()?.flatten();
    for pid in pids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()) {
        let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else { continue };
        // stat(2) follows the link to the socket itself and is never ambiguous, as a text would be.
        let is_it = |path: PathBuf| {
            fs::metadata(path).is_ok_and(|meta| meta.ino() == inode && is_socket(meta.mode()))
        };
        if descriptors.flatten().any(|entry| is_it(entry.path())) {
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            return Some((pid, name.trim_end().to_owned()));
        }
    }
    None
}

fn is_socket(mode: u32) -> bool {
    rustix::fs::FileType::from_raw_mode(mode) == rustix::fs::FileType::Socket
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_kernels_table_is_read() {
        let line = "   0: 0100007F:1F40 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4242 1 0000000000000000 100 0 0 10 0";
        let socket = Socket::parse(line).unwrap();
        assert_eq!((socket.address, socket.port), (Ipv4Addr::LOCALHOST, 8000));
        assert_eq!((socket.state, socket.inode), (LISTEN, 4242));
    }

    #[test]
    fn an_ipv6_wildcard_holds_the_port_on_ipv4_too() {
        assert_eq!(parse_address(&"0".repeat(32)), Some(Ipv4Addr::UNSPECIFIED));
        assert_eq!(parse_address("00000000000000000000000001000000"), None);
        assert_eq!(parse_address("0000000000000000FFFF00000100007F"), Some(Ipv4Addr::LOCALHOST));
    }
}
