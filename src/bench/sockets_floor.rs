//! What bare sockets cost: a frame sent to each of many clients, and an ack received from each.
//!
//! No server that sends every client a message of its own, and is sent an acknowledgement by each, can cost less than
//! these two system calls, which on one machine hold the way through TCP to the client as well. What a broadcast costs is
//! compared with this, in the same run.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinSet;

use super::BenchError;

/// Clients. Both ends are this process's, which has fewer than 20,000 descriptors on many machines.
const CLIENTS: usize = 4_000;
/// A broadcast of 100 bytes, and the acknowledgement of one, in WebSocket frames.
const FRAME_BYTES: usize = 200;
const ACK_BYTES: usize = 60;
/// Time within which a client answers.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// How its figures are shown.
pub(crate) const GROUP: &str = "Floor: a frame sent to each of 4,000 bare sockets, and an ack received from each";
pub(crate) const NAME: &str = "CPU of the sender for a frame and its ack";

/// CPU time of the one end, in microseconds for each client and message, over as many messages as fit into `time`.
///
/// # Errors
/// [`BenchError::Broken`] if this machine does not let so many connections be made.
pub(crate) async fn measure(time: Duration) -> Result<f64, BenchError> {
    let broken = |error: String| BenchError::Broken(format!("the floor of sockets could not be measured: {error}"));
    let measured = tokio::task::spawn_blocking(move || measure_here(time)).await;
    measured.map_err(|error| broken(error.to_string()))?.map_err(|error| broken(error.to_string()))
}

fn measure_here(time: Duration) -> io::Result<f64> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    let pairs = (0..CLIENTS).map(|_| Ok((TcpStream::connect(address)?, accept(&listener)?)));
    let (others, mut sockets): (Vec<_>, Vec<_>) = pairs.collect::<io::Result<Vec<_>>>()?.into_iter().unzip();
    let clients = thread::Builder::new().name("floor-clients".to_owned()).spawn(move || answer_all(others))?;
    let (frame, mut ack) = ([b'x'; FRAME_BYTES], [0; ACK_BYTES]);
    let mut rounds = 0_u32;
    // The first one is for buffers that are not there yet.
    let (mut begin, mut cpu_before) = (Instant::now(), cpu());
    while rounds == 0 || begin.elapsed() < time {
        if rounds == 1 {
            (begin, cpu_before) = (Instant::now(), cpu());
        }
        for socket in &mut sockets {
            socket.write_all(&frame)?;
        }
        for socket in &mut sockets {
            socket.read_exact(&mut ack)?;
        }
        rounds += 1;
    }
    let used = cpu().saturating_sub(cpu_before);
    drop(sockets);
    clients.join().map_err(|_| io::Error::other("the clients panicked"))??;
    let messages = f64::from(rounds.saturating_sub(1).max(1)) * CLIENTS as f64;
    Ok(used.as_secs_f64() * 1_000_000.0 / messages)
}

fn accept(listener: &TcpListener) -> io::Result<TcpStream> {
    let (socket, _) = listener.accept()?;
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(ANSWER_MAX))?;
    Ok(socket)
}

/// CPU time of this thread.
fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}

/// The other ends, until the one end closes.
fn answer_all(sockets: Vec<TcpStream>) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(async {
        let mut clients = JoinSet::new();
        for socket in sockets {
            socket.set_nodelay(true)?;
            socket.set_nonblocking(true)?;
            let mut socket = tokio::net::TcpStream::from_std(socket)?;
            clients.spawn(async move {
                let mut frame = [0; FRAME_BYTES];
                while socket.read_exact(&mut frame).await.is_ok() && socket.write_all(&[b'a'; ACK_BYTES]).await.is_ok()
                {
                }
            });
        }
        clients.join_all().await;
        Ok(())
    })
}
