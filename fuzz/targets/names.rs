//! Ids, names, and the keys and channels that are made of them.

use homing_protocol::id::EntryId;
use homing_protocol::name::Name;

use super::cursor::Cursor;
use crate::store::keys::UserKey;
use crate::store::{Key, KeySpace, Lock};

/// Two texts and a prefix: as ids, as names of users, as names of keys.
pub fn names(data: &[u8]) {
    let mut cursor = Cursor::new(data);
    let database = i64::from(cursor.byte() % 16);
    let prefix = cursor.one_of(&["homing", "h", "a:b", "nodes", "__keyspace@0__"]);
    let (first, second, third) = (cursor.until(b'\n'), cursor.until(b'\n'), cursor.rest());
    for bytes in [first, second, third] {
        check_id(bytes);
    }
    let [first, second, third] = [first, second, third].map(String::from_utf8_lossy);
    let keys = KeySpace::new(prefix, database);
    let (user, other) = (check_name(&first), check_name(&second));
    if let Some(user) = &user {
        check_own_keys(&keys, prefix, user, &third);
        if let Some(other) = other.as_ref().filter(|other| *other != user) {
            for key in users_keys(&keys, user, &third) {
                assert!(!users_keys(&keys, other, &third).contains(&key), "{key:?} belongs to two users");
            }
        }
    }
    // A stranger's key or channel that is taken for an inbox is one.
    for text in [third.into_owned(), format!("__keyspace@{database}__:{prefix}:{second}"), format!("{prefix}:{second}")]
    {
        check_foreign(&keys, &text);
    }
}

fn check_id(bytes: &[u8]) {
    let number = |digits: &str| digits.parse::<u64>().ok().filter(|number| number.to_string() == digits);
    let expected = std::str::from_utf8(bytes).ok().and_then(|text| {
        let (ms, seq) = text.split_once('-')?;
        Some(EntryId { ms: number(ms)?, seq: number(seq)? })
    });
    let parsed = EntryId::parse(bytes).ok();
    assert_eq!(parsed, expected);
    if let Some(id) = parsed {
        assert_eq!(id.to_string().as_bytes(), bytes);
        assert!(id.next().is_none_or(|next| next > id));
    }
}

fn check_name(text: &str) -> Option<Name> {
    let in_alphabet = |byte: u8| byte.is_ascii_alphanumeric() || b"._~@:+=|-".contains(&byte);
    let expected = (1..=255).contains(&text.len()) && text != "." && text != ".." && text.bytes().all(in_alphabet);
    let name = Name::parse(text).ok();
    assert_eq!(name.is_some(), expected, "{text:?}");
    if let Some(name) = &name {
        assert_eq!(name.as_str(), text);
    }
    name
}

fn users_keys(keys: &KeySpace, user: &Name, once: &str) -> [String; 3] {
    [Key::Inbox(user), Key::Devices(user), Key::Once(user, once)].map(|key| keys.name(key))
}

fn check_own_keys(keys: &KeySpace, prefix: &str, user: &Name, once: &str) {
    let all = users_keys(keys, user, once);
    for key in &all {
        assert_eq!(hash_tag(key), Some(user.as_str()), "{key:?} is in another slot than its user's other keys");
        assert!(key.starts_with(&keys.users_pattern()[..prefix.len() + 2]), "the janitor would not find {key:?}");
    }
    let own = [Key::Nodes, Key::Epoch, Key::Schema, Key::Lock(Lock::Migration), Key::Lock(Lock::Janitor)];
    for key in own.into_iter().chain([Key::Probe(user.as_str())]) {
        assert!(!all.contains(&keys.name(key)), "a user's key is one of the node's");
    }
    let [inbox, devices, _] = &all;
    assert!(inbox != devices && !all[..2].contains(&all[2]), "two keys of a user are one");
    assert_eq!(keys.user_key(inbox), Some((user.as_str(), UserKey::Inbox)));
    assert_eq!(keys.user_key(devices), Some((user.as_str(), UserKey::Devices)));
    assert_eq!(keys.user_of_event(&keys.event_channel(Key::Inbox(user))), Some(user.as_str()));
    assert_eq!(keys.user_of_event(&keys.event_channel(Key::Devices(user))), None);
    // An idempotency key is any text; whatever it is, its key is nobody's inbox.
    check_foreign(keys, &all[2]);
    check_foreign(keys, &keys.event_channel(Key::Once(user, once)));
    assert!(keys.control_channel(user.as_str()).strip_prefix(&keys.control_prefix()) == Some(user.as_str()));
}

fn check_foreign(keys: &KeySpace, text: &str) {
    if let Some((user, kind)) = keys.user_key(text)
        && let Ok(user) = Name::parse(user)
    {
        let key = match kind {
            UserKey::Inbox => Key::Inbox(&user),
            UserKey::Devices => Key::Devices(&user),
        };
        assert_eq!(keys.name(key), text);
    }
    if let Some(user) = keys.user_of_event(text)
        && let Ok(user) = Name::parse(user)
    {
        assert_eq!(keys.event_channel(Key::Inbox(&user)), text);
    }
}

/// As the specification of Redis Cluster defines it: what stands between the first `{` and the first `}` after it,
/// unless that is nothing.
fn hash_tag(key: &str) -> Option<&str> {
    let (_, rest) = key.split_once('{')?;
    let (tag, _) = rest.split_once('}')?;
    Some(tag).filter(|tag| !tag.is_empty())
}
