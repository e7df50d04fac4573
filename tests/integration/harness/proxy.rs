//! A TCP proxy that behaves like a bad network.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::port::free_port;

/// What happens to connections and bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Weather {
    /// Everything passes.
    Fair,
    /// Everything passes, each piece this much later.
    Late(Duration),
    /// Nothing passes and nobody is told: a partition, or a peer that is gone without a word.
    Silent,
    /// Requests pass, answers do not: the commands run, and nobody learns of it.
    AnswersLost,
    /// Every connection is reset, new ones at once.
    Refusing,
}

/// A running proxy; it ends with its test's runtime.
#[derive(Debug)]
pub(crate) struct TcpProxy {
    address: SocketAddr,
    weather: watch::Sender<Weather>,
    /// Counts up with every [`TcpProxy::reset_all`].
    resets: watch::Sender<u64>,
    task: JoinHandle<()>,
}

impl TcpProxy {
    /// Starts a proxy to `upstream` (`host:port`).
    pub(crate) async fn start(upstream: String) -> Self {
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let listener = TcpListener::bind(address).await.expect("the port was free");
        let (weather, sky) = watch::channel(Weather::Fair);
        let (resets, reset) = watch::channel(0);
        let task = tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                tokio::spawn(forward(near, upstream.clone(), sky.clone(), reset.clone()));
            }
        });
        Self { address, weather, resets, task }
    }

    /// The URL of a Redis behind this proxy.
    pub(crate) fn redis_url(&self) -> String {
        format!("redis://{}/0", self.address)
    }

    pub(crate) fn set(&self, weather: Weather) {
        self.weather.send_replace(weather);
    }

    /// Resets every open connection; new ones pass.
    pub(crate) fn reset_all(&self) {
        self.resets.send_modify(|count| *count += 1);
    }
}

impl Drop for TcpProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn forward(near: TcpStream, upstream: String, sky: watch::Receiver<Weather>, mut reset: watch::Receiver<u64>) {
    reset.mark_unchanged();
    if *sky.borrow() == Weather::Refusing {
        let _ = near.set_zero_linger();
        return;
    }
    let Ok(far) = TcpStream::connect(upstream).await else { return };
    // With no time to linger, dropping a socket resets it: the peer sees an error, not an end.
    for stream in [&near, &far] {
        let _ = stream.set_nodelay(true);
        let _ = stream.set_zero_linger();
    }
    let (near_read, near_write) = near.into_split();
    let (far_read, far_write) = far.into_split();
    let mut refusing = sky.clone();
    tokio::select! {
        () = pump(near_read, far_write, sky.clone(), Weather::Silent) => {}
        () = pump(far_read, near_write, sky.clone(), Weather::AnswersLost) => {}
        _ = reset.changed() => {}
        _ = refusing.wait_for(|weather| *weather == Weather::Refusing) => {}
    }
}

/// Copies one direction. In `Silent` weather bytes are held back and pass when it clears, as TCP would retransmit them;
/// in `lost` weather of this direction they are held back as well.
async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut sky: watch::Receiver<Weather>, lost: Weather) {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let count = match from.read(&mut buffer).await {
            Ok(0) | Err(_) => 0,
            Ok(count) => count,
        };
        let weather = *sky.borrow();
        if let Weather::Late(delay) = weather {
            tokio::time::sleep(delay).await;
        }
        if sky.wait_for(|weather| *weather != Weather::Silent && *weather != lost).await.is_err() {
            return;
        }
        if count == 0 || to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}
