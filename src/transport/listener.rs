//! Listening sockets: opened with what a storm of reconnecting clients needs, shared by all shards.

use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};
use thiserror::Error;

/// Connections that the kernel keeps for us while we are busy: a storm of reconnecting clients must not meet refusals.
const BACKLOG: i32 = 16_384;

/// An address cannot be listened on.
#[derive(Debug, Error)]
#[error("cannot listen on {address}: {cause}")]
pub struct ListenError {
    address: SocketAddr,
    cause: std::io::Error,
}

/// A listening socket that shards can share by cloning it.
///
/// # Errors
/// [`ListenError`] when the address is taken or not ours.
pub fn listen(address: SocketAddr) -> Result<TcpListener, ListenError> {
    open(address).map_err(|cause| ListenError { address, cause })
}

fn open(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // A restart must not wait for old connections; two live servers on one address are still refused.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}
