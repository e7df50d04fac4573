//! Commands into bytes and replies out of bytes (RESP2, <https://redis.io/docs/latest/develop/reference/protocol-spec/>).
//!
//! The `redis` crate's parser is built for streams of any kind and makes several allocations for each entry, which
//! costs a message several times as much (see `docs/adr/0009-own-connections.md`). Here, replies are found in what has
//! arrived without looking at a byte twice, and are read where they lie.

use std::borrow::Cow;
use std::io;

use homing_protocol::id::EntryId;
use redis::Cmd;

use super::error::StoreError;

/// Nested arrays at most; replies to Homing's commands have five levels.
const DEPTH_MAX: usize = 16;
/// Largest bulk string that a server may announce: Redis's own limit (`proto-max-bulk-len`).
const BULK_BYTES_MAX: usize = 512 * 1024 * 1024;
/// Longest number: a sign and 19 digits.
const NUMBER_BYTES_MAX: usize = 20;
/// Longest line; errors are the longest.
const LINE_BYTES_MAX: usize = 64 * 1024;

/// A reply, in the buffer that it arrived in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// Nothing.
    Nil,
    /// A number.
    Int(i64),
    /// Any bytes.
    Bulk(&'a [u8]),
    /// A line, as `OK`.
    Simple(&'a [u8]),
    /// A refusal: its code, as `WRONGTYPE`, and its text.
    Error(&'a str, &'a str),
    /// Several replies.
    Array(Vec<Value<'a>>),
}

impl<'a> From<&'a redis::Value> for Value<'a> {
    /// A reply that the `redis` crate has read. A map becomes the array that it is in RESP2.
    fn from(value: &'a redis::Value) -> Self {
        match value {
            redis::Value::Nil => Self::Nil,
            redis::Value::Int(number) => Self::Int(*number),
            redis::Value::BulkString(bytes) => Self::Bulk(bytes),
            redis::Value::SimpleString(text) => Self::Simple(text.as_bytes()),
            redis::Value::Okay => Self::Simple(b"OK"),
            redis::Value::Array(values) | redis::Value::Set(values) => {
                Self::Array(values.iter().map(Self::from).collect())
            }
            redis::Value::Map(pairs) => {
                Self::Array(pairs.iter().flat_map(|(name, value)| [Self::from(name), Self::from(value)]).collect())
            }
            redis::Value::ServerError(error) => Self::Error(error.code(), error.details().unwrap_or_default()),
            _ => Self::Error("ERR", "a reply of a type that is not asked for"),
        }
    }
}

/// Finds the ends of replies in bytes that arrive in pieces. Looks at no byte twice, apart from an incomplete line.
#[derive(Debug, Default)]
pub(super) struct Scanner {
    /// Everything before has been looked at.
    at: usize,
    /// End of the last complete reply.
    end: usize,
    /// Complete replies so far.
    count: usize,
    /// Elements that are missing of each array that has begun.
    open: Vec<usize>,
}

impl Scanner {
    /// Looks on, until `count` replies are complete or `bytes` ends; answers how many are complete. `bytes` is what
    /// it was the last time, and what has come since.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidData`] for bytes that are no replies.
    pub(super) fn scan(&mut self, bytes: &[u8], count: usize) -> io::Result<usize> {
        while self.count < count && self.scan_one(bytes)? {}
        Ok(self.count)
    }

    /// Bytes of the complete replies; the next scan begins behind them.
    pub(super) fn take(&mut self) -> usize {
        self.count = 0;
        self.at -= self.end;
        std::mem::take(&mut self.end)
    }

    /// Passes one value or the beginning of an array; false if it is not all there.
    fn scan_one(&mut self, bytes: &[u8]) -> io::Result<bool> {
        let Some(kind) = bytes.get(self.at) else { return Ok(false) };
        if matches!(kind, b'+' | b'-') {
            let Some((_, after)) = line(bytes, self.at)? else { return Ok(false) };
            self.at = after;
            return Ok(self.pass());
        }
        if !matches!(kind, b':' | b'$' | b'*') {
            return Err(invalid("a reply of unknown type"));
        }
        let Some((number, after)) = number(bytes, self.at + 1)? else { return Ok(false) };
        match kind {
            b'$' => match usize::try_from(number).ok() {
                None => self.at = after,
                Some(length) if length > BULK_BYTES_MAX => return Err(invalid("a bulk string of impossible length")),
                Some(length) => {
                    let Some(end) = bytes.get(after + length..after + length + 2) else { return Ok(false) };
                    if end != b"\r\n" {
                        return Err(invalid("a bulk string without an end"));
                    }
                    self.at = after + length + 2;
                }
            },
            b'*' => {
                self.at = after;
                if let Ok(elements @ 1..) = usize::try_from(number) {
                    if self.open.len() == DEPTH_MAX {
                        return Err(invalid("a reply of too many levels"));
                    }
                    self.open.push(elements);
                    return Ok(true);
                }
            }
            _ => self.at = after,
        }
        Ok(self.pass())
    }

    /// A value is complete, and with it the arrays whose last element it is.
    fn pass(&mut self) -> bool {
        while let Some(missing) = self.open.last_mut() {
            *missing -= 1;
            if *missing > 0 {
                return true;
            }
            self.open.pop();
        }
        self.count += 1;
        self.end = self.at;
        true
    }
}

/// The line at `at`, without its end, and where the next begins.
fn line(bytes: &[u8], at: usize) -> io::Result<Option<(&[u8], usize)>> {
    let rest = &bytes[at..];
    match memchr::memchr(b'\n', rest) {
        Some(end) => Ok(Some((rest[..end].strip_suffix(b"\r").unwrap_or(&rest[..end]), at + end + 1))),
        None if rest.len() > LINE_BYTES_MAX => Err(invalid("a line without an end")),
        None => Ok(None),
    }
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// The number that is the line at `at`, and where the next begins. Most of what is looked at is such lines, and most of
/// them have one to three digits.
#[inline]
pub(super) fn number(bytes: &[u8], at: usize) -> io::Result<Option<(i64, usize)>> {
    let Some(rest) = bytes.get(at..) else { return Ok(None) };
    match *rest {
        [a @ b'0'..=b'9', b'\r', b'\n', ..] => Ok(Some((digit(a), at + 3))),
        [a @ b'0'..=b'9', b @ b'0'..=b'9', b'\r', b'\n', ..] => Ok(Some((digit(a) * 10 + digit(b), at + 4))),
        [a @ b'0'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9', b'\r', b'\n', ..] => {
            Ok(Some((digit(a) * 100 + digit(b) * 10 + digit(c), at + 5)))
        }
        _ => any_number(rest, at),
    }
}

fn digit(byte: u8) -> i64 {
    i64::from(byte - b'0')
}

/// As [`number`], of a line of any length that begins with `rest`.
fn any_number(rest: &[u8], at: usize) -> io::Result<Option<(i64, usize)>> {
    let negative = rest.first() == Some(&b'-');
    let (mut sum, first) = (0_i64, usize::from(negative));
    for (index, byte) in rest.iter().enumerate().skip(first) {
        match byte {
            // Zeros without end would overflow nothing.
            _ if index > NUMBER_BYTES_MAX => return Err(unreadable()),
            b'0'..=b'9' => {
                sum = sum.checked_mul(10).and_then(|sum| sum.checked_add(digit(*byte))).ok_or_else(unreadable)?;
            }
            b'\r' if index > first => {
                return match rest.get(index + 1) {
                    Some(b'\n') => Ok(Some((if negative { -sum } else { sum }, at + index + 2))),
                    Some(_) => Err(unreadable()),
                    None => Ok(None),
                };
            }
            _ => return Err(unreadable()),
        }
    }
    Ok(None)
}

fn unreadable() -> io::Error {
    invalid("an unreadable number")
}

/// Complete replies, one after the other.
#[derive(Debug)]
pub struct Replies<B> {
    bytes: B,
}

impl<B: AsRef<[u8]>> Replies<B> {
    /// `bytes` have been scanned.
    pub(super) fn new(bytes: B) -> Self {
        Self { bytes }
    }

    /// All of `bytes` that are complete replies.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidData`] for bytes that are no replies.
    pub fn scanned(bytes: B) -> io::Result<Self> {
        Scanner::default().scan(bytes.as_ref(), usize::MAX)?;
        Ok(Self { bytes })
    }

    /// Reads them in order.
    #[must_use]
    pub fn reader(&self) -> Reader<'_> {
        Reader { bytes: self.bytes.as_ref(), at: 0 }
    }

    /// The bytes as they came.
    pub(super) fn bytes(&self) -> &[u8] {
        self.bytes.as_ref()
    }
}

/// Reads replies one by one.
#[derive(Debug)]
pub struct Reader<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) at: usize,
}

impl<'a> Iterator for Reader<'a> {
    type Item = Value<'a>;

    fn next(&mut self) -> Option<Value<'a>> {
        // The scanner has seen that everything is sound.
        let kind = *self.bytes.get(self.at)?;
        if matches!(kind, b'+' | b'-') {
            let (line, after) = line(self.bytes, self.at).ok()??;
            self.at = after;
            let rest = line.get(1..)?;
            if kind == b'+' {
                return Some(Value::Simple(rest));
            }
            let text = std::str::from_utf8(rest).unwrap_or("ERR an error that is no text");
            let (code, detail) = text.split_once(' ').unwrap_or((text, ""));
            return Some(Value::Error(code, detail));
        }
        let (number, after) = number(self.bytes, self.at + 1).ok()??;
        self.at = after;
        Some(match kind {
            b'$' => match usize::try_from(number).ok() {
                Some(length) => {
                    let bytes = self.bytes.get(after..after + length)?;
                    self.at = after + length + 2;
                    Value::Bulk(bytes)
                }
                None => Value::Nil,
            },
            b'*' => match usize::try_from(number).ok() {
                // Of all elements, some bytes are there: what is announced takes no more room than what came.
                Some(count) => {
                    let mut values = Vec::with_capacity(count.min(self.bytes.len() - after));
                    for _ in 0..count {
                        let Some(value) = self.next() else { break };
                        values.push(value);
                    }
                    Value::Array(values)
                }
                None => Value::Nil,
            },
            _ => Value::Int(number),
        })
    }
}

/// Writes commands.
#[derive(Debug, Default)]
pub struct Commands {
    bytes: Vec<u8>,
    count: usize,
}

impl Commands {
    /// Begins a command of so many arguments, its name among them.
    pub fn command(&mut self, arguments: usize) -> Arguments<'_> {
        self.count += 1;
        push_length(&mut self.bytes, b'*', arguments);
        Arguments { bytes: &mut self.bytes, missing: arguments }
    }

    /// Adds a command that is written rarely.
    pub fn add(&mut self, command: &Cmd) {
        self.count += 1;
        command.write_packed_command(&mut self.bytes);
    }

    /// Moves others behind these.
    pub fn append(&mut self, others: &mut Self) {
        self.bytes.append(&mut others.bytes);
        self.count += std::mem::take(&mut others.count);
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// What was written.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Forgets everything, but keeps at most so many bytes of room.
    pub(super) fn clear(&mut self, kept_bytes_max: usize) {
        self.bytes.clear();
        self.bytes.shrink_to(kept_bytes_max);
        self.count = 0;
    }
}

/// The arguments of one command, all of which must be given.
#[derive(Debug)]
pub struct Arguments<'a> {
    bytes: &'a mut Vec<u8>,
    missing: usize,
}

impl Arguments<'_> {
    /// Adds an argument.
    #[inline]
    pub fn arg(&mut self, argument: impl AsRef<[u8]>) -> &mut Self {
        self.parts(&[argument.as_ref()])
    }

    /// Adds an argument that is in parts, as the name of a key is.
    #[inline]
    pub fn parts<P: AsRef<[u8]>>(&mut self, parts: &[P]) -> &mut Self {
        // Adding one too many would make it the next command.
        assert!(self.missing > 0, "a command has the arguments that were announced");
        self.missing -= 1;
        let length = parts.iter().map(|part| part.as_ref().len()).sum();
        self.bytes.reserve(length + FRAMING_BYTES_MAX);
        push_length(self.bytes, b'$', length);
        for part in parts {
            self.bytes.extend_from_slice(part.as_ref());
        }
        self.bytes.extend_from_slice(b"\r\n");
        self
    }

    /// Adds a number.
    pub fn number(&mut self, number: u64) -> &mut Self {
        let mut digits = itoa::Buffer::new();
        self.arg(digits.format(number))
    }

    /// Adds an entry id.
    pub fn id(&mut self, id: EntryId) -> &mut Self {
        let (mut ms, mut seq) = (itoa::Buffer::new(), itoa::Buffer::new());
        self.parts(&[ms.format(id.ms), "-", seq.format(id.seq)])
    }

    /// Adds entry ids.
    pub fn ids(&mut self, ids: &[EntryId]) -> &mut Self {
        for id in ids {
            self.id(*id);
        }
        self
    }
}

impl Drop for Arguments<'_> {
    fn drop(&mut self) {
        debug_assert!(self.missing == 0 || std::thread::panicking(), "{} arguments are missing", self.missing);
    }
}

/// What stands around an argument: `$`, a length of 20 digits and two ends of lines.
const FRAMING_BYTES_MAX: usize = 25;

#[inline]
fn push_length(bytes: &mut Vec<u8>, kind: u8, length: usize) {
    // Nearly all are names, numbers and ids: one piece instead of three.
    match u8::try_from(length) {
        Ok(length @ 0..10) => bytes.extend_from_slice(&[kind, b'0' + length, b'\r', b'\n']),
        Ok(length @ 10..100) => {
            bytes.extend_from_slice(&[kind, b'0' + length / 10, b'0' + length % 10, b'\r', b'\n']);
        }
        _ => {
            bytes.push(kind);
            bytes.extend_from_slice(itoa::Buffer::new().format(length).as_bytes());
            bytes.extend_from_slice(b"\r\n");
        }
    }
}

/// Takes the error out of a reply.
///
/// # Errors
/// The server's error, sorted.
pub fn check(value: Value<'_>) -> Result<Value<'_>, StoreError> {
    match value {
        Value::Error(code, detail) => Err(StoreError::from_reply(code, detail)),
        value => Ok(value),
    }
}

impl<'a> Value<'a> {
    /// The text of a bulk string or a line.
    #[must_use]
    pub fn text(&self) -> Option<Cow<'a, str>> {
        match self {
            Self::Bulk(bytes) | Self::Simple(bytes) => std::str::from_utf8(bytes).ok().map(Cow::Borrowed),
            Self::Int(number) => Some(Cow::Owned(number.to_string())),
            _ => None,
        }
    }
}

#[cfg(test)]
#[path = "resp_tests.rs"]
mod tests;
