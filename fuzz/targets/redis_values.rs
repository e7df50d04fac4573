//! Replies of Redis out of bytes: any tree at all, with a liking for the shapes that Homing reads.

use redis::Value;

use super::cursor::Cursor;

/// Deepest tree; the shapes that are read have four levels.
const DEPTH_MAX: usize = 6;

/// Texts that stand in replies of the functions, in records and in replies of commands.
const WORDS: [&str; 24] = [
    "ok",
    "stale",
    "superseded",
    "too_many",
    "removed",
    "1",
    "0",
    "",
    "0-0",
    "18446744073709551615",
    "18446744073709551615-18446744073709551615",
    r#"{"generation":"7"}"#,
    r#"{"generation":"7","owner":"n:1.0","node":"n","first_seen_ms":1e300,"gap":{"id":"gap-1","reason":"epoch","count":3}}"#,
    r#"{"id":"gap-1","reason":"retention","count":18446744073709551615}"#,
    r#"{"seen_ms":-1e308}"#,
    r#"{"shards":65535}"#,
    "data",
    "type",
    "json",
    r#"{"a":[1,2]}"#,
    "exp",
    "pending",
    "lag",
    "last-delivered-id",
];

/// Some replies of a pipeline.
pub(super) enum Given<'a> {
    /// The bytes of the protocol.
    Bytes(&'a [u8]),
    /// Trees.
    Trees(Vec<Value>),
}

pub(super) fn replies<'a>(cursor: &mut Cursor<'a>) -> Given<'a> {
    match cursor.below(4) {
        0 => Given::Bytes(cursor.until(0xff)),
        count => Given::Trees((0..count).map(|_| value(cursor, 0)).collect()),
    }
}

fn value(cursor: &mut Cursor<'_>, depth: usize) -> Value {
    if depth >= DEPTH_MAX || cursor.is_empty() {
        return Value::Nil;
    }
    match cursor.below(20) {
        0 => Value::Nil,
        1 => Value::Int(i64::from(cursor.byte())),
        2 => Value::Int(cursor.number() as i64),
        3 => bulk(cursor.counted()),
        4 | 5 => word(cursor),
        6 => id(cursor),
        7 => Value::SimpleString(String::from_utf8_lossy(cursor.counted()).into_owned()),
        8 => Value::Okay,
        9 => Value::Map(list(cursor, |cursor| (value(cursor, depth + 1), value(cursor, depth + 1)))),
        10 => Value::Set(list(cursor, |cursor| value(cursor, depth + 1))),
        11 => Value::Double(f64::from_bits(cursor.number())),
        12 => Value::Boolean(cursor.below(2) == 1),
        13 => error(cursor),
        14 => entry(cursor, depth),
        15 => Value::Array(list(cursor, |cursor| entry(cursor, depth))),
        // The reply of a group read over one stream.
        16 => Value::Array(vec![Value::Array(vec![
            bulk(b"homing:{u}:inbox"),
            Value::Array(list(cursor, |cursor| entry(cursor, depth))),
        ])]),
        // A row of a pending list.
        17 => {
            Value::Array(vec![id(cursor), bulk(b"c"), Value::Int(cursor.number() as i64), value(cursor, DEPTH_MAX - 1)])
        }
        _ => Value::Array(list(cursor, |cursor| value(cursor, depth + 1))),
    }
}

fn list<T>(cursor: &mut Cursor<'_>, mut element: impl FnMut(&mut Cursor<'_>) -> T) -> Vec<T> {
    (0..cursor.below(12)).map(|_| element(cursor)).collect()
}

fn bulk(bytes: &[u8]) -> Value {
    Value::BulkString(bytes.to_vec())
}

fn word(cursor: &mut Cursor<'_>) -> Value {
    bulk(cursor.one_of(&WORDS).as_bytes())
}

fn id(cursor: &mut Cursor<'_>) -> Value {
    bulk(format!("{}-{}", cursor.byte(), cursor.below(4)).as_bytes())
}

fn entry(cursor: &mut Cursor<'_>, depth: usize) -> Value {
    let id = if cursor.below(8) == 7 { value(cursor, depth + 1) } else { id(cursor) };
    let fields = match cursor.below(8) {
        6 => Value::Nil,
        7 => value(cursor, depth + 1),
        _ => Value::Array(list(
            cursor,
            |cursor| if cursor.below(2) == 0 { word(cursor) } else { bulk(cursor.counted()) },
        )),
    };
    Value::Array(vec![id, fields])
}

fn error(cursor: &mut Cursor<'_>) -> Value {
    let code =
        cursor.one_of(&["ERR", "OOM", "NOGROUP", "WRONGTYPE", "READONLY", "MOVED", "ERR Function not found", ""]);
    let text = String::from_utf8_lossy(cursor.counted()).replace(['\r', '\n'], " ");
    redis::parse_redis_value(format!("-{code} {text}\r\n").as_bytes()).unwrap_or(Value::Nil)
}
