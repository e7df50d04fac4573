use proptest::prelude::*;

use super::*;

const REPLY: &[u8] =
    b"*7\r\n$3\r\na\r\n\r\n:-12\r\n+OK\r\n+QUEUED\r\n*3\r\n$-1\r\n*-1\r\n*0\r\n-NOGROUP No such key\r\n$0\r\n\r\n";

fn read(bytes: &[u8]) -> Vec<Value<'_>> {
    let mut scanner = Scanner::default();
    scanner.scan(bytes, usize::MAX).unwrap();
    Reader { bytes: &bytes[..scanner.take()], at: 0 }.collect()
}

#[test]
fn a_reply_reads_as_the_redis_crate_reads_it() {
    let by_crate = redis::parse_redis_value(REPLY).unwrap();
    assert_eq!(read(REPLY), [Value::from(&by_crate)]);
}

#[test]
fn replies_are_found_however_they_arrive() {
    let bytes = [REPLY, b":1\r\n", REPLY].concat();
    for first in 0..bytes.len() {
        for piece in [1, 7, bytes.len()] {
            let mut scanner = Scanner::default();
            let (mut there, mut found) = (first, scanner.scan(&bytes[..first], usize::MAX).unwrap());
            while there < bytes.len() {
                there = (there + piece).min(bytes.len());
                found = scanner.scan(&bytes[..there], usize::MAX).unwrap();
            }
            assert_eq!((found, scanner.take()), (3, bytes.len()), "{first} bytes, then {piece} at a time");
        }
    }
}

#[test]
fn only_as_many_replies_are_taken_as_were_asked_for() {
    let bytes = b":1\r\n:2\r\n:3\r\n";
    let mut scanner = Scanner::default();
    assert_eq!(scanner.scan(bytes, 2).unwrap(), 2);
    let taken = scanner.take();
    assert_eq!(taken, 8);
    assert_eq!(scanner.scan(&bytes[taken..], 2).unwrap(), 1);
}

#[test]
fn what_is_no_reply_is_refused() {
    let deep = "*1\r\n".repeat(DEPTH_MAX + 2);
    let long = "+".repeat(LINE_BYTES_MAX + 2);
    let zeros = format!(":{}", "0".repeat(NUMBER_BYTES_MAX + 2));
    let odd = ["x\r\n", "\r\n", ":\r\n", ":1x\r\n", ":99999999999999999999\r\n", "$2000000000\r\n", "$1\r\nabc"];
    for text in odd.into_iter().chain([deep.as_str(), long.as_str(), zeros.as_str()]) {
        assert!(Scanner::default().scan(text.as_bytes(), 1).is_err(), "{text:?}");
    }
}

#[test]
fn commands_are_written_as_the_redis_crate_writes_them() {
    let id = EntryId { ms: u64::MAX, seq: u64::MAX };
    let mut commands = Commands::default();
    commands.command(6).arg("XACK").arg(b"in\r\nbox").arg("").number(0).id(id).ids(&[EntryId { ms: 1, seq: 0 }]);
    let mut command = redis::cmd("XACK");
    command.arg(b"in\r\nbox").arg("").arg(0).arg(id.to_string()).arg("1-0");
    assert_eq!(commands.bytes(), command.get_packed_command());
    commands.add(&command);
    assert_eq!((commands.len(), commands.bytes().len()), (2, 2 * command.get_packed_command().len()));
}

fn any_value() -> impl Strategy<Value = Vec<u8>> {
    let leaf = prop_oneof![
        any::<i64>()
            .prop_filter("no number above", |number| *number > i64::MIN)
            .prop_map(|n| format!(":{n}\r\n").into_bytes()),
        proptest::collection::vec(any::<u8>(), 0..40)
            .prop_map(|bytes| { [format!("${}\r\n", bytes.len()).as_bytes(), &bytes, b"\r\n"].concat() }),
        "[a-zA-Z ]{0,20}".prop_map(|text| format!("+{text}\r\n").into_bytes()),
        "[A-Z]{1,9} [a-z ]{1,20}".prop_map(|text| format!("-{text}\r\n").into_bytes()),
        Just(b"$-1\r\n".to_vec()),
        Just(b"*-1\r\n".to_vec()),
    ];
    leaf.prop_recursive(5, 60, 8, |inner| {
        proptest::collection::vec(inner, 0..8)
            .prop_map(|values| [format!("*{}\r\n", values.len()).into_bytes(), values.concat()].concat())
    })
}

proptest! {
    /// Nothing that a server sends may panic, or make room for what is only announced.
    #[test]
    fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut scanner = Scanner::default();
        if scanner.scan(&bytes, usize::MAX).is_ok() {
            let taken = scanner.take();
            Reader { bytes: &bytes[..taken], at: 0 }.for_each(drop);
        }
    }

    #[test]
    fn any_reply_reads_as_the_redis_crate_reads_it(bytes in any_value()) {
        let by_crate = redis::parse_redis_value(&bytes).unwrap();
        prop_assert_eq!(read(&bytes), [Value::from(&by_crate)]);
    }
}
