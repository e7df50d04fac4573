//! A real redis-server for unit tests: on a Unix socket in a folder of its own, so that no port can collide.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::store::{Store, StoreConfig};

/// A private server, ended with its handle.
pub(crate) struct TestRedis {
    child: Child,
    folder: PathBuf,
}

impl TestRedis {
    /// Starts a server and waits until it answers; the functions of `migrations/` are not loaded.
    pub(crate) async fn start() -> (Self, Store) {
        let folder = std::env::temp_dir().join(format!("homing-test-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir_all(&folder).unwrap();
        let socket = folder.join("redis.sock");
        let child = Command::new("redis-server")
            .args(["--port", "0", "--save", "", "--appendonly", "no", "--unixsocket"])
            .arg(&socket)
            .arg("--dir")
            .arg(&folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let redis = Self { child, folder };
        let store = Store::new(&StoreConfig {
            url: format!("unix://{}", socket.display()),
            ca_pem: None,
            prefix: "homing".to_owned(),
            reply_timeout: Duration::from_secs(5),
        })
        .unwrap();
        let give_up = tokio::time::Instant::now() + Duration::from_secs(10);
        while store.client().get_multiplexed_async_connection().await.is_err() {
            assert!(tokio::time::Instant::now() < give_up, "redis-server did not start");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        (redis, store)
    }

    /// Kills the server at once.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for TestRedis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
