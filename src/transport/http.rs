//! HTTP on one connection.

use std::time::Duration;

use axum::Router;
use bytes::Bytes;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpStream;
use tokio::sync::watch;

use super::accept::stopped;
use super::prefixed::Prefixed;
use super::slots::Slot;

/// Headers of a request.
const HEADERS_MAX: usize = 64;
/// Largest head of a request; hyper's smallest.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// Serves requests until the client closes, or the node stops and the request under way is answered.
pub(super) async fn serve(
    stream: TcpStream,
    prefix: Bytes,
    router: Router,
    places: (Slot, Slot),
    header_timeout: Duration,
    mut stopping: watch::Receiver<bool>,
) {
    let io = TokioIo::new(Prefixed::new(prefix, stream));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(header_timeout)
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        .serve_connection(io, TowerToHyperService::new(router))
        .with_upgrades();
    tokio::pin!(connection);
    // A connection that breaks is the client's business; both arms are polled to their end.
    tokio::select! {
        _ = connection.as_mut() => {}
        () = stopped(&mut stopping) => {
            connection.as_mut().graceful_shutdown();
            let _ = connection.await;
        }
    }
    drop(places);
}
