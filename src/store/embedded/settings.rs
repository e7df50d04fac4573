//! The private redis-server's folder and configuration file.

use std::fs::{DirBuilder, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::address::Address;
use super::error::EmbeddedError;

/// The file whose lock makes the data directory one node's own. It holds the process id of that node.
pub(super) const LOCK_FILE: &str = "lock";
/// redis-server's configuration, written anew at every start.
pub(super) const SETTINGS_FILE: &str = "redis.conf";
/// redis-server's log.
pub(super) const LOG_FILE: &str = "redis.log";
/// redis-server's address, for `homing inspect` and people.
pub(super) const URL_FILE: &str = "redis.url";
/// redis-server's socket.
pub(super) const SOCKET_FILE: &str = "redis.sock";

/// Makes the folder, for its owner only, and returns its absolute path.
pub(super) fn make_folder(folder: &Path) -> Result<PathBuf, EmbeddedError> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(EmbeddedError::io(folder))?;
    folder.canonicalize().map_err(EmbeddedError::io(folder))
}

/// Writes configuration and address; call it with the lock held only.
pub(super) fn write(folder: &Path, address: &Address) -> Result<PathBuf, EmbeddedError> {
    let path = folder.join(SETTINGS_FILE);
    replace(&path, &settings(folder, address))?;
    replace(&folder.join(URL_FILE), &format!("{}\n", address.url()))?;
    Ok(path)
}

fn settings(folder: &Path, address: &Address) -> String {
    let listen = match address {
        Address::Unix(path) => format!("port 0\nunixsocket {}\nunixsocketperm 700\n", quoted(path)),
        Address::Loopback { port, password } => format!("bind 127.0.0.1\nport {port}\nrequirepass {password}\n"),
    };
    let (folder, log) = (quoted(folder), quoted(&folder.join(LOG_FILE)));
    format!(
        "# Written by `homing serve` at every start; changes are lost.\n\
         {listen}\
         dir {folder}\n\
         logfile {log}\n\
         daemonize no\n\
         # What was acknowledged to a producer is on disk within a second.\n\
         appendonly yes\n\
         appendfsync everysec\n\
         aof-use-rdb-preamble yes\n\
         # A message adds half a kilobyte to the log until the log is rewritten. That takes a core for seconds, and each\n\
         # page of memory that is written meanwhile is copied: at 25,000 messages a second a stall every 5 s with the\n\
         # default of 64 MB, every 75 s with this. To load 768 MB takes 6 s.\n\
         auto-aof-rewrite-min-size 768mb\n\
         save \"\"\n\
         # A full memory refuses new messages; it never drops old ones.\n\
         maxmemory-policy noeviction\n\
         # Wake-ups: keyspace events of streams.\n\
         notify-keyspace-events Kt\n\
         # A subscriber that is slow for a moment must not be cut off: every wake-up would be lost at once.\n\
         client-output-buffer-limit pubsub 256mb 64mb 60\n\
         # A stream with one small message costs 1.4 KB with this, and 5 KB with the default of 4096; 1,000 messages of\n\
         # 100 bytes cost 209 KB instead of 130. Most inboxes are short.\n\
         stream-node-max-bytes 512\n\
         # Deleting a large inbox must not stop everybody else.\n\
         lazyfree-lazy-user-del yes\n"
    )
}

/// As redis.conf wants it: double quotes, with a backslash before quotes and backslashes.
fn quoted(path: &Path) -> String {
    format!("\"{}\"", path.to_string_lossy().replace('\\', "\\\\").replace('"', "\\\""))
}

/// Another process sees the old text or the new one. The file is for its owner only: it may hold a password.
fn replace(path: &Path, text: &str) -> Result<(), EmbeddedError> {
    let new = path.with_extension("new");
    let write = || {
        let _ = std::fs::remove_file(&new);
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?.write_all(text.as_bytes())?;
        std::fs::rename(&new, path)
    };
    write().map_err(EmbeddedError::io(path))
}

/// Lines of the log that are shown when redis-server ends at once.
const TAIL_LINES: usize = 5;

/// The end of redis-server's log.
pub(super) fn log_tail(folder: &Path) -> String {
    let log = std::fs::read(folder.join(LOG_FILE)).unwrap_or_default();
    let text = String::from_utf8_lossy(&log[log.len().saturating_sub(4_096)..]).into_owned();
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_with_quotes_cannot_end_its_setting() {
        assert_eq!(quoted(Path::new("/a \"b\\c")), r#""/a \"b\\c""#);
    }

    #[test]
    fn the_password_is_for_the_owner_only() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = std::env::temp_dir().join(format!("homing-settings-{}", uuid::Uuid::new_v4().simple()));
        let folder = make_folder(&folder).unwrap();
        let address = Address::Loopback { port: 1, password: "secret".to_owned() };
        let path = write(&folder, &address).unwrap();
        assert!(std::fs::read_to_string(&path).unwrap().contains("requirepass secret"));
        for file in [path, folder.join(URL_FILE), folder.clone()] {
            assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o077, 0, "{file:?}");
        }
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
