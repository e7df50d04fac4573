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
    /// Everything passes, each direction of a connection at this many bytes a second.
    Narrow(u32),
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
    /// Counts up with every [`TcpProxy::strand_all`].
    strandings: watch::Sender<u64>,
    task: JoinHandle<()>,
}

impl TcpProxy {
    /// Starts a proxy to `upstream` (`host:port`).
    pub(crate) async fn start(upstream: String) -> Self {
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let listener = TcpListener::bind(address).await.expect("the port was free");
        let (weather, sky) = watch::channel(Weather::Fair);
        let (resets, reset) = watch::channel(0);
        let (strandings, strand) = watch::channel(0);
        let task = tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                tokio::spawn(forward(near, upstream.clone(), sky.clone(), reset.clone(), strand.clone()));
            }
        });
        Self { address, weather, resets, strandings, task }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
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

    /// Every open connection goes silent for ever, and its end never arrives: a firewall that forgot it. New ones pass.
    pub(crate) fn strand_all(&self) {
        self.strandings.send_modify(|count| *count += 1);
    }
}

impl Drop for TcpProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn forward(
    near: TcpStream,
    upstream: String,
    sky: watch::Receiver<Weather>,
    mut reset: watch::Receiver<u64>,
    mut strand: watch::Receiver<u64>,
) {
    reset.mark_unchanged();
    strand.mark_unchanged();
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
    let (mut near_read, mut near_write) = near.into_split();
    let (mut far_read, mut far_write) = far.into_split();
    let mut refusing = sky.clone();
    let stranded = tokio::select! {
        () = pump(&mut near_read, &mut far_write, sky.clone(), Weather::Silent) => false,
        () = pump(&mut far_read, &mut near_write, sky.clone(), Weather::AnswersLost) => false,
        _ = reset.changed() => false,
        _ = strand.changed() => true,
        _ = refusing.wait_for(|weather| *weather == Weather::Refusing) => false,
    };
    if stranded {
        drop((far_read, far_write));
        std::future::pending::<()>().await;
    }
}

/// Copies one direction. In `Silent` weather bytes are held back and pass when it clears, as TCP would retransmit them;
/// in `lost` weather of this direction they are held back as well.
async fn pump(from: &mut OwnedReadHalf, to: &mut OwnedWriteHalf, mut sky: watch::Receiver<Weather>, lost: Weather) {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let count = match from.read(&mut buffer).await {
            Ok(0) | Err(_) => 0,
            Ok(count) => count,
        };
        let weather = *sky.borrow();
        match weather {
            Weather::Late(delay) => tokio::time::sleep(delay).await,
            Weather::Narrow(bytes) => {
                let size = u32::try_from(count).expect("a read is at most the buffer");
                tokio::time::sleep(Duration::from_secs(1) * size / bytes).await;
            }
            _ => {}
        }
        if sky.wait_for(|weather| *weather != Weather::Silent && *weather != lost).await.is_err() {
            return;
        }
        if count == 0 || to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}
