//! A connection to Redis that its owner drives by itself: bytes out, replies in, no task or channel between.

use std::future::poll_fn;
use std::io;
use std::path::PathBuf;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use redis::aio::ConnectionLike;
use redis::{Client, Cmd, ConnectionAddr, Pipeline, RedisError, RedisFuture};
use tokio::io::{AsyncReadExt as _, AsyncWrite as _};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::error::StoreError;
use super::resp::{Commands, Replies, Scanner, check};

/// Room that there is for each read, at least; more while a long reply comes.
const READ_BYTES_MIN: usize = 16 * 1024;
/// Room for one read at most, so that what else waits gets its turn.
const READ_BYTES_MAX: usize = 256 * 1024;
/// Buffers beyond this size are given back when they are empty.
const KEPT_BYTES_MAX: usize = 256 * 1024;

/// Where the server is, and who we are to it.
#[derive(Clone)]
pub(super) struct Dialer {
    target: Target,
    username: Option<String>,
    password: Option<String>,
    database: i64,
}

#[derive(Clone)]
enum Target {
    Tcp(String, u16),
    Tls(String, u16, Arc<ClientConfig>),
    Unix(PathBuf),
}

impl Dialer {
    /// Reaches what `client` reaches. `ca_pem` is the authority for TLS; the usual web roots if `None`.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if the certificate or the URL is unusable.
    pub(super) fn new(client: &Client, ca_pem: Option<&[u8]>) -> Result<Self, StoreError> {
        let info = client.get_connection_info();
        let target = match info.addr() {
            ConnectionAddr::Tcp(host, port) => Target::Tcp(host.clone(), *port),
            ConnectionAddr::TcpTls { host, port, insecure: false, .. } => {
                Target::Tls(host.clone(), *port, Arc::new(tls_config(ca_pem)?))
            }
            ConnectionAddr::Unix(path) => Target::Unix(path.clone()),
            _ => return Err(StoreError::Unavailable("a TLS server whose certificate is not checked".to_owned())),
        };
        let settings = info.redis_settings();
        Ok(Self {
            target,
            username: settings.username().map(str::to_owned),
            password: settings.password().map(str::to_owned),
            database: settings.db(),
        })
    }

    /// Connects, authenticates and selects the database. Whoever calls sets the time-out.
    ///
    /// # Errors
    /// A [`StoreError`]; nothing of the caller's was sent.
    pub(super) async fn dial(&self) -> Result<Wire, StoreError> {
        let stream = self.target.connect().await.map_err(|error| StoreError::Unavailable(error.to_string()))?;
        let mut wire = Wire {
            stream,
            database: self.database,
            commands: Commands::default(),
            written: 0,
            input: BytesMut::new(),
            scanner: Scanner::default(),
            broken: false,
        };
        if let Some(password) = &self.password {
            match &self.username {
                Some(username) => wire.commands().command(3).arg("AUTH").arg(username).arg(password),
                None => wire.commands().command(2).arg("AUTH").arg(password),
            };
        }
        if self.database != 0 {
            wire.commands().command(2).arg("SELECT").number(self.database.unsigned_abs());
        }
        let count = wire.commands().len();
        if count > 0 {
            let replies = wire.exchange(count).await.map_err(|error| StoreError::Unavailable(error.to_string()))?;
            for reply in replies.reader() {
                // A server that does not let us in is as good as none.
                check(reply).map_err(|error| StoreError::Unavailable(format!("cannot log in: {error}")))?;
            }
        }
        Ok(wire)
    }
}

impl Target {
    async fn connect(&self) -> io::Result<Stream> {
        Ok(match self {
            Self::Tcp(host, port) => Stream::Tcp(connect_tcp(host, *port).await?),
            Self::Tls(host, port, config) => {
                let name = ServerName::try_from(host.clone()).map_err(io::Error::other)?;
                let stream = connect_tcp(host, *port).await?;
                Stream::Tls(Box::new(TlsConnector::from(config.clone()).connect(name, stream).await?))
            }
            Self::Unix(path) => Stream::Unix(UnixStream::connect(path).await?),
        })
    }
}

async fn connect_tcp(host: &str, port: u16) -> io::Result<TcpStream> {
    let stream = TcpStream::connect((host, port)).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn tls_config(ca_pem: Option<&[u8]>) -> Result<ClientConfig, StoreError> {
    let unusable = |error: String| StoreError::Unavailable(format!("the certificate authority is unusable: {error}"));
    let mut roots = RootCertStore::empty();
    match ca_pem {
        None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
        Some(pem) => {
            for certificate in CertificateDer::pem_slice_iter(pem) {
                let certificate = certificate.map_err(|error| unusable(error.to_string()))?;
                roots.add(certificate).map_err(|error| unusable(error.to_string()))?;
            }
            if roots.is_empty() {
                return Err(unusable("it holds no certificate".to_owned()));
            }
        }
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().map_err(|error| unusable(error.to_string()))?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

enum Stream {
    Tcp(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    Unix(UnixStream),
}

impl Stream {
    fn poll_write(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Tcp(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Unix(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    /// What TLS has taken leaves with a flush.
    fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tls(stream) => Pin::new(stream).poll_flush(context),
            Self::Tcp(_) | Self::Unix(_) => Poll::Ready(Ok(())),
        }
    }

    fn poll_read(&mut self, context: &mut Context<'_>, input: &mut BytesMut) -> Poll<io::Result<usize>> {
        match self {
            Self::Tcp(stream) => pin!(stream.read_buf(input)).poll(context),
            Self::Tls(stream) => pin!(stream.read_buf(input)).poll(context),
            Self::Unix(stream) => pin!(stream.read_buf(input)).poll(context),
        }
    }
}

/// The connection. An error leaves it unusable.
pub struct Wire {
    stream: Stream,
    database: i64,
    commands: Commands,
    /// Bytes of `commands` that have left.
    written: usize,
    input: BytesMut,
    scanner: Scanner,
    /// An exchange was begun and not finished: replies would be taken for others'.
    broken: bool,
}

impl Wire {
    /// Where commands are written that leave with the next flush.
    pub fn commands(&mut self) -> &mut Commands {
        &mut self.commands
    }

    /// Whether everything has left.
    #[must_use]
    pub fn is_flushed(&self) -> bool {
        self.commands.is_empty()
    }

    /// Writes what is to be written. Cancel-safe.
    ///
    /// # Errors
    /// The connection is lost.
    pub fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.commands.is_empty() {
            return Poll::Ready(Ok(()));
        }
        while self.written < self.commands.bytes().len() {
            let rest = &self.commands.bytes()[self.written..];
            let count = ready!(self.stream.poll_write(context, rest))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += count;
        }
        ready!(self.stream.poll_flush(context))?;
        self.commands.clear(KEPT_BYTES_MAX);
        self.written = 0;
        Poll::Ready(Ok(()))
    }

    /// All complete replies, as soon as there are at least `min`, and at most `max`. Cancel-safe.
    ///
    /// # Errors
    /// The connection is lost, or something came that is no reply.
    pub fn poll_replies(
        &mut self,
        context: &mut Context<'_>,
        min: usize,
        max: usize,
    ) -> Poll<io::Result<(usize, Replies<BytesMut>)>> {
        loop {
            let count = self.scanner.scan(&self.input, max)?;
            if count >= min {
                return Poll::Ready(Ok((count, Replies::new(self.input.split_to(self.scanner.take())))));
            }
            self.input.reserve(self.input.len().clamp(READ_BYTES_MIN, READ_BYTES_MAX));
            if ready!(self.stream.poll_read(context, &mut self.input))? == 0 {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
        }
    }

    /// Ready when the connection, on which no reply is awaited, is lost.
    pub fn poll_lost(&mut self, context: &mut Context<'_>) -> Poll<io::Error> {
        Poll::Ready(match ready!(self.poll_replies(context, 1, 1)) {
            Ok(_) => io::Error::new(io::ErrorKind::InvalidData, "a reply that nobody asked for"),
            Err(error) => error,
        })
    }

    /// Sends what was written and awaits its `count` replies. If it is dropped before its end, the connection is of no
    /// use any more.
    ///
    /// # Errors
    /// The connection is lost, and what becomes of the commands is not known.
    pub async fn exchange(&mut self, count: usize) -> io::Result<Replies<BytesMut>> {
        if std::mem::replace(&mut self.broken, true) {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        if self.input.is_empty() && self.input.capacity() > KEPT_BYTES_MAX {
            self.input = BytesMut::new();
        }
        let (_, replies) = poll_fn(|context| {
            // Reads before everything is written: Redis stops reading from one who does not take its replies.
            let flushed = self.poll_flush(context)?.is_ready();
            match self.poll_replies(context, count, count)? {
                Poll::Ready(replies) if flushed => Poll::Ready(Ok::<_, io::Error>(replies)),
                Poll::Ready(_) => {
                    Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, "replies to what was not sent")))
                }
                Poll::Pending => Poll::Pending,
            }
        })
        .await?;
        self.broken = false;
        Ok(replies)
    }

    async fn exchange_for_crate(&mut self, count: usize) -> Result<Vec<redis::Value>, RedisError> {
        let replies = self.exchange(count).await?;
        into_crate(replies.bytes(), count)
    }
}

/// Replies as the `redis` crate reads them, for commands that are sent rarely.
pub(super) fn into_crate(bytes: &[u8], count: usize) -> Result<Vec<redis::Value>, RedisError> {
    let all = [format!("*{count}\r\n").as_bytes(), bytes].concat();
    match redis::parse_redis_value(&all)? {
        redis::Value::Array(values) => Ok(values),
        value => Ok(vec![value]),
    }
}

impl ConnectionLike for Wire {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, redis::Value> {
        Box::pin(async move {
            self.commands.add(command);
            Ok(self.exchange_for_crate(1).await?.pop().unwrap_or(redis::Value::Nil))
        })
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<redis::Value>> {
        Box::pin(async move {
            pipeline.cmd_iter().for_each(|command| self.commands.add(command));
            let mut replies = self.exchange_for_crate(offset + count).await?;
            Ok(replies.split_off(offset))
        })
    }

    fn get_db(&self) -> i64 {
        self.database
    }
}

#[cfg(test)]
#[path = "wire_tests.rs"]
mod tests;
