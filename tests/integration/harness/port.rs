//! Ports that no other test takes.

use std::collections::HashMap;
use std::fs::File;
use std::net::TcpListener;
use std::sync::{Mutex, PoisonError};

use rustix::fs::{FlockOperation, flock};

/// Below the range from which the kernel takes the ports of outgoing connections: one of those could otherwise take a
/// server's port while the server restarts.
const FIRST: u16 = 12_000;
const COUNT: u16 = 16_000;

/// The locks of the ports that were handed out, held until the test process ends: another test process that runs at
/// the same time must not take them either.
static TAKEN: Mutex<Option<HashMap<u16, File>>> = Mutex::new(None);

/// A free port on loopback, handed out once per machine while this process lives.
pub(crate) fn free_port() -> u16 {
    let folder = std::env::temp_dir().join("homing-test-ports");
    std::fs::create_dir_all(&folder).expect("the folder for temporary files can be written to");
    let mut guard = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
    let taken = guard.get_or_insert_default();
    let start = u16::try_from((std::process::id() * 131) % u32::from(COUNT)).expect("COUNT is a u16");
    for step in 0..COUNT {
        let port = FIRST + (start + step) % COUNT;
        if taken.contains_key(&port) {
            continue;
        }
        let Ok(file) = File::create(folder.join(port.to_string())) else { continue };
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            continue;
        }
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            taken.insert(port, file);
            return port;
        }
    }
    panic!("no free port between {FIRST} and {}", FIRST + COUNT);
}
