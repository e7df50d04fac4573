//! The replies that every message comes in, read straight from their bytes: that of an `XREADGROUP`, and what was
//! published on a channel.
//!
//! Invariant: what is read here is what the general way ([`group_reads`](super::replies::group_reads), a tree of values)
//! makes of the same bytes; whatever has another shape is left to it.

use homing_protocol::id::EntryId;
use homing_protocol::message::Entry;

use super::replies::{RawEntry, StreamRead};
use super::resp::{Reader, number};

/// What a message on a channel begins with.
const MESSAGE_HEAD: &[u8] = b"*3\r\n$7\r\nmessage\r\n";
/// The reply if no stream had anything new.
const NOTHING: &[u8] = b"*-1\r\n";
/// Bytes of the shortest stream: `*2`, a name and an empty list.
const STREAM_BYTES_MIN: usize = 14;
/// Bytes of the shortest entry: `*2`, an id and an empty list. What is announced takes no more room than what came.
const ENTRY_BYTES_MIN: usize = 17;
/// Bytes of the shortest pair of a field and its value.
const FIELD_BYTES_MIN: usize = 12;

impl<'a> Reader<'a> {
    /// The streams of a group read, if the next reply is one and each of its entries still exists. Else nothing is passed.
    pub fn next_group_reads(&mut self) -> Option<Vec<StreamRead<'a>>> {
        let mut cursor = Cursor { bytes: self.bytes, at: self.at };
        let streams = cursor.group_reads()?;
        self.at = cursor.at;
        Some(streams)
    }

    /// Channel and payload, if the next reply is a message on a channel. Else nothing is passed.
    pub fn next_message(&mut self) -> Option<(&'a [u8], &'a [u8])> {
        let rest = self.bytes.get(self.at..)?.strip_prefix(MESSAGE_HEAD)?;
        let mut cursor = Cursor { bytes: self.bytes, at: self.bytes.len() - rest.len() };
        let message = (cursor.bulk()?, cursor.bulk()?);
        self.at = cursor.at;
        Some(message)
    }
}

/// Where in the bytes the reading has got to.
struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn group_reads(&mut self) -> Option<Vec<StreamRead<'a>>> {
        if self.bytes.get(self.at..)?.starts_with(NOTHING) {
            self.at += NOTHING.len();
            return Some(Vec::new());
        }
        let count = self.length(b'*')?;
        let mut streams = Vec::with_capacity(count.min(self.left() / STREAM_BYTES_MIN));
        for _ in 0..count {
            if self.length(b'*')? != 2 {
                return None;
            }
            streams.push((self.bulk()?, self.entries()?));
        }
        Some(streams)
    }

    fn entries(&mut self) -> Option<Vec<RawEntry<'a>>> {
        let count = self.length(b'*')?;
        let mut entries = Vec::with_capacity(count.min(self.left() / ENTRY_BYTES_MIN));
        for _ in 0..count {
            entries.push(self.entry()?);
        }
        Some(entries)
    }

    fn entry(&mut self) -> Option<RawEntry<'a>> {
        if self.length(b'*')? != 2 {
            return None;
        }
        let id = EntryId::parse(self.bulk()?).ok()?;
        let count = self.length(b'*')?;
        if count % 2 != 0 {
            return None;
        }
        let mut fields = Vec::with_capacity((count / 2).min(self.left() / FIELD_BYTES_MIN));
        for _ in 0..count / 2 {
            fields.push((self.bulk()?, self.bulk()?));
        }
        Some(Entry { id, fields })
    }

    fn bulk(&mut self) -> Option<&'a [u8]> {
        let length = self.length(b'$')?;
        let bytes = self.bytes.get(self.at..)?.get(..length)?;
        self.at += length + 2;
        Some(bytes)
    }

    /// A length that is not negative, of what begins with `kind`.
    #[inline]
    fn length(&mut self, kind: u8) -> Option<usize> {
        if *self.bytes.get(self.at)? != kind {
            return None;
        }
        let (length, after) = number(self.bytes, self.at + 1).ok()??;
        self.at = after;
        usize::try_from(length).ok()
    }

    fn left(&self) -> usize {
        self.bytes.len().saturating_sub(self.at)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::replies::group_reads;
    use super::super::resp::Replies;
    use super::*;

    /// What the general way makes of the first reply of `bytes`.
    fn generally(bytes: &[u8]) -> Option<Vec<StreamRead<'_>>> {
        group_reads(Replies::scanned(bytes).ok().map(|_| Reader { bytes, at: 0 }.next())??).ok()
    }

    fn straight(bytes: &[u8]) -> (Option<Vec<StreamRead<'_>>>, usize) {
        let mut reader = Reader { bytes, at: 0 };
        let streams = reader.next_group_reads();
        (streams, reader.at)
    }

    fn bulk(bytes: &[u8]) -> Vec<u8> {
        [format!("${}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat()
    }

    fn array(parts: &[Vec<u8>]) -> Vec<u8> {
        [format!("*{}\r\n", parts.len()).into_bytes(), parts.concat()].concat()
    }

    fn any_part() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            12 => proptest::collection::vec(any::<u8>(), 0..300).prop_map(|bytes| bulk(&bytes)),
            1 => Just(b"$-1\r\n".to_vec()),
            1 => Just(b":1\r\n".to_vec()),
        ]
    }

    fn any_entry() -> impl Strategy<Value = Vec<u8>> {
        let id = prop_oneof![
            20 => (any::<u64>(), any::<u64>()).prop_map(|(ms, seq)| bulk(EntryId { ms, seq }.to_string().as_bytes())),
            1 => any_part(),
        ];
        let fields = prop_oneof![
            20 => proptest::collection::vec((any_part(), any_part()), 0..4)
                .prop_map(|pairs| array(&pairs.into_iter().flat_map(|(name, value)| [name, value]).collect::<Vec<_>>())),
            1 => proptest::collection::vec(any_part(), 0..4).prop_map(|parts| array(&parts)),
            1 => Just(b"*-1\r\n".to_vec()),
        ];
        (id, fields).prop_map(|(id, fields)| array(&[id, fields]))
    }

    proptest! {
        // Clients would else see other messages than those that are in the inbox.
        #[test]
        fn entries_are_read_as_they_are_the_general_way(
            streams in proptest::collection::vec(proptest::collection::vec(any_entry(), 0..6), 0..4),
        ) {
            let streams: Vec<_> = streams.iter().map(|entries| array(&[bulk(b"homing:{alice}:inbox"), array(entries)])).collect();
            let reply = if streams.is_empty() { NOTHING.to_vec() } else { array(&streams) };
            let bytes = [reply.as_slice(), b":1\r\n"].concat();
            match straight(&bytes) {
                (Some(streams), at) => {
                    prop_assert_eq!(at, reply.len());
                    prop_assert_eq!(Some(streams), generally(&bytes));
                }
                (None, at) => prop_assert_eq!(at, 0),
            }
        }

        #[test]
        fn whole_entries_need_no_other_way(
            fields in proptest::collection::vec((any::<Vec<u8>>(), any::<Vec<u8>>()), 0..5),
            ms: u64,
            count in 1usize..70,
        ) {
            let flat: Vec<_> = fields.iter().flat_map(|(name, value)| [bulk(name), bulk(value)]).collect();
            let entry = array(&[bulk(EntryId { ms, seq: 0 }.to_string().as_bytes()), array(&flat)]);
            let streams = [&b"one"[..], b"two"].map(|name| array(&[bulk(name), array(&vec![entry.clone(); count])]));
            let bytes = array(&streams);
            let read = straight(&bytes).0;
            let counts = |streams: &Vec<StreamRead<'_>>| streams.iter().map(|(_, entries)| entries.len()).collect::<Vec<_>>();
            prop_assert_eq!(read.as_ref().map(counts), Some(vec![count; 2]));
            prop_assert_eq!(read, generally(&bytes));
        }

        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            straight(&bytes);
            straight(&[b"*1\r\n*2\r\n$0\r\n\r\n*9\r\n*2\r\n$3\r\n1-1\r\n*2000000000\r\n".as_slice(), &bytes].concat());
        }
    }

    #[test]
    fn messages_are_read_and_what_stands_between_them_is_left() {
        let message = array(&[bulk(b"message"), bulk(b"channel"), bulk(b"xadd")]);
        let bytes = [message.as_slice(), b"*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n", &message].concat();
        let mut reader = Reader { bytes: &bytes, at: 0 };
        assert_eq!(reader.next_message(), Some((&b"channel"[..], &b"xadd"[..])));
        assert_eq!(reader.next_message(), None);
        assert!(reader.next().is_some());
        assert!(reader.next_message().is_some() && reader.next().is_none());
        let odd = array(&[bulk(b"message"), b"$-1\r\n".to_vec(), bulk(b"xadd")]);
        assert_eq!(Reader { bytes: &odd, at: 0 }.next_message(), None);
    }

    #[test]
    fn other_replies_are_left_where_they_are() {
        for reply in
            ["-NOGROUP no\r\n", ":1\r\n", "*1\r\n*-1\r\n", "*1\r\n*2\r\n$1\r\nk\r\n*1\r\n*2\r\n$3\r\n1-1\r\n*-1\r\n"]
        {
            assert_eq!(straight(reply.as_bytes()), (None, 0), "{reply:?}");
        }
    }
}
