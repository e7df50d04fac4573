//! A real redis-server for unit tests, on a Unix socket in a folder of its own.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use redis::aio::MultiplexedConnection;

pub(crate) struct TestServer {
    folder: PathBuf,
    child: Child,
}

impl TestServer {
    pub(crate) fn start(options: &[&str]) -> Self {
        Self::start_with(options, |_| {})
    }

    /// `prepare` puts files into the server's folder, which its options may name.
    pub(crate) fn start_with(options: &[&str], prepare: impl FnOnce(&Path)) -> Self {
        let folder = std::env::temp_dir().join(format!("homing-redis-{}", uuid::Uuid::new_v4().simple()));
        std::fs::create_dir(&folder).expect("a temporary folder can be made");
        prepare(&folder);
        let child = Command::new("redis-server")
            .args(["--port", "0", "--save", "", "--unixsocket", "redis.sock", "--dir"])
            .arg(&folder)
            .args(options)
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is installed");
        Self { folder, child }
    }

    /// A file in the server's folder.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    pub(crate) fn url(&self) -> String {
        format!("unix://{}/redis.sock", self.folder.display())
    }

    /// Waits for the server to come up, and gives a store on it; the functions are not loaded.
    pub(crate) async fn store(&self) -> super::Store {
        self.connect().await;
        super::Store::new(&super::StoreConfig {
            url: self.url(),
            ca_pem: None,
            prefix: "homing".to_owned(),
            reply_timeout: std::time::Duration::from_secs(5),
        })
        .expect("the URL is well-formed")
    }

    /// Waits for the server to come up.
    pub(crate) async fn connect(&self) -> MultiplexedConnection {
        let client = redis::Client::open(self.url()).expect("the URL is well-formed");
        let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(10);
        loop {
            match client.get_multiplexed_async_connection().await {
                Ok(connection) => return connection,
                Err(error) if tokio::time::Instant::now() > deadline => panic!("redis-server did not start: {error}"),
                Err(_) => tokio::time::sleep(std::time::Duration::from_millis(10)).await,
            }
        }
    }
}

impl TestServer {
    /// Ends the server at once.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.kill();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
