//! Where the private redis-server listens: a Unix socket in its folder, or a loopback port with a password.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::error::EmbeddedError;
use super::settings::{SOCKET_FILE, URL_FILE};

/// `sockaddr_un` holds 108 bytes on Linux and 104 on macOS, with a final zero.
const SOCKET_PATH_BYTES_MAX: usize = 100;

/// Where the private redis-server listens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Address {
    Unix(PathBuf),
    Loopback { port: u16, password: String },
}

impl Address {
    /// A socket in `data_dir`, an absolute path, if that is short enough; else a free port.
    pub(super) fn choose(data_dir: &Path) -> Result<Self, EmbeddedError> {
        let socket = data_dir.join(SOCKET_FILE);
        if socket.as_os_str().len() < SOCKET_PATH_BYTES_MAX {
            return Ok(Self::Unix(socket));
        }
        // Another process may take the port before redis-server does; then redis-server ends, and the start with it.
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
        let port = port.map_err(|error| EmbeddedError::Unusable(format!("no free port: {error}")))?.port();
        Ok(Self::Loopback { port, password: uuid::Uuid::new_v4().simple().to_string() })
    }

    pub(super) fn url(&self) -> String {
        match self {
            Self::Unix(path) => format!("unix://{}", percent_encoded(path)),
            Self::Loopback { port, password } => format!("redis://default:{password}@127.0.0.1:{port}/"),
        }
    }
}

fn percent_encoded(path: &Path) -> String {
    let mut encoded = String::new();
    for byte in path.as_os_str().as_encoded_bytes() {
        if byte.is_ascii_alphanumeric() || b"/._-~".contains(byte) {
            encoded.push(char::from(*byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

/// The address of the private redis-server that runs, or last ran, in a data directory.
#[must_use]
pub fn running_url(data_dir: &Path) -> Option<String> {
    std::fs::read_to_string(data_dir.join(URL_FILE)).ok().map(|url| url.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_path_that_is_too_long_becomes_a_port_with_a_password() {
        let short = Address::choose(Path::new("/tmp/data")).unwrap();
        assert_eq!(short.url(), "unix:///tmp/data/redis.sock");
        let long = Address::choose(Path::new(&format!("/tmp/{}", "x".repeat(100)))).unwrap();
        assert!(matches!(&long, Address::Loopback { port: 1.., password } if password.len() == 32));
    }

    #[test]
    fn a_socket_path_with_odd_characters_survives_the_url() {
        use redis::IntoConnectionInfo as _;
        let path = PathBuf::from("/tmp/my data #1%é?/redis.sock");
        let info = Address::Unix(path.clone()).url().into_connection_info().unwrap();
        assert_eq!(*info.addr(), redis::ConnectionAddr::Unix(path));
    }
}
