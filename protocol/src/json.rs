//! Whether bytes are one JSON value (RFC 8259), in one pass and without building anything.
//!
//! Each payload is looked at before it is spliced into a frame. Invariant: what passes here is what `serde_json` takes as
//! a raw value and is nested at most [`JSON_DEPTH_MAX`] deep; a property test compares the two.

use crate::limits::JSON_DEPTH_MAX;

/// One bit for each open object or array.
const _: () = assert!(JSON_DEPTH_MAX <= u128::BITS as usize);

/// The text of `data` without surrounding white space if it is one valid JSON value of at most [`JSON_DEPTH_MAX`]
/// levels.
#[must_use]
pub fn value(data: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(data).ok()?;
    let begin = after_white_space(data, 0);
    let end = after_value(data, begin)?;
    if after_white_space(data, end) != data.len() {
        return None;
    }
    text.get(begin..end)
}

/// Where the value at `at` ends.
fn after_value(bytes: &[u8], mut at: usize) -> Option<usize> {
    // Of the open objects and arrays, the innermost in the lowest bit: 1 is an object.
    let (mut objects, mut depth) = (0_u128, 0);
    loop {
        at = match *bytes.get(at)? {
            b'"' => after_text(bytes, at + 1)?,
            opening @ (b'{' | b'[') => {
                if depth == JSON_DEPTH_MAX {
                    return None;
                }
                let is_object = opening == b'{';
                let inside = after_white_space(bytes, at + 1);
                if *bytes.get(inside)? == closing(is_object) {
                    inside + 1
                } else {
                    depth += 1;
                    objects = objects << 1 | u128::from(is_object);
                    at = if is_object { after_name(bytes, inside)? } else { inside };
                    continue;
                }
            }
            b'-' => after_number(bytes, at + 1)?,
            b'0'..=b'9' => after_number(bytes, at)?,
            b't' => after_word(bytes, at, b"true")?,
            b'f' => after_word(bytes, at, b"false")?,
            b'n' => after_word(bytes, at, b"null")?,
            _ => return None,
        };
        // A value is complete, and with it perhaps those around it.
        loop {
            if depth == 0 {
                return Some(at);
            }
            at = after_white_space(bytes, at);
            let is_object = objects & 1 == 1;
            match *bytes.get(at)? {
                b',' => {
                    at = after_white_space(bytes, at + 1);
                    if is_object {
                        at = after_name(bytes, at)?;
                    }
                    break;
                }
                byte if byte == closing(is_object) => {
                    at += 1;
                    depth -= 1;
                    objects >>= 1;
                }
                _ => return None,
            }
        }
    }
}

fn closing(is_object: bool) -> u8 {
    if is_object { b'}' } else { b']' }
}

#[inline]
fn after_white_space(bytes: &[u8], mut at: usize) -> usize {
    // Most of what is looked at is no white space, and beyond it.
    while let Some(byte @ ..=b' ') = bytes.get(at)
        && matches!(byte, b' ' | b'\n' | b'\t' | b'\r')
    {
        at += 1;
    }
    at
}

/// Where the value of the member begins whose name is at `at`.
#[inline]
fn after_name(bytes: &[u8], at: usize) -> Option<usize> {
    if *bytes.get(at)? != b'"' {
        return None;
    }
    let colon = after_white_space(bytes, after_text(bytes, at + 1)?);
    (*bytes.get(colon)? == b':').then(|| after_white_space(bytes, colon + 1))
}

/// Where the text ends whose first byte behind the quotation mark is at `at`.
#[inline]
fn after_text(bytes: &[u8], mut at: usize) -> Option<usize> {
    loop {
        at = special(bytes, at)?;
        if bytes[at] == b'"' {
            return Some(at + 1);
        }
        // Control characters stand in texts as escapes only.
        if bytes[at] != b'\\' {
            return None;
        }
        at = after_escape(bytes, at + 1)?;
    }
}

/// The first quotation mark, backslash or control character from `at` on.
#[inline]
fn special(bytes: &[u8], mut at: usize) -> Option<usize> {
    const ONES: u64 = u64::MAX / 0xff;
    const HIGHEST: u64 = ONES << 7;
    // Eight bytes at once: the highest bit of each says whether it is special. A borrow can only make a byte seem so that
    // stands behind one that is (https://graphics.stanford.edu/~seander/bithacks.html#HasLessInWord).
    while let Some(eight) = bytes.get(at..).and_then(<[u8]>::first_chunk) {
        let word = u64::from_le_bytes(*eight);
        let is_zero = |word: u64| word.wrapping_sub(ONES) & !word;
        let is_control = word.wrapping_sub(ONES * 0x20) & !word;
        let found = (is_control | is_zero(word ^ (ONES * 0x22)) | is_zero(word ^ (ONES * 0x5c))) & HIGHEST;
        if found != 0 {
            return Some(at + (found.trailing_zeros() / 8) as usize);
        }
        at += 8;
    }
    let rest = bytes.get(at..)?.iter().position(|byte| matches!(byte, b'"' | b'\\' | 0..0x20))?;
    Some(at + rest)
}

/// Where the escape ends whose first byte behind the backslash is at `at`. Halves of surrogate pairs may stand alone.
fn after_escape(bytes: &[u8], at: usize) -> Option<usize> {
    match *bytes.get(at)? {
        b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Some(at + 1),
        b'u' => bytes.get(at + 1..at + 5)?.iter().all(u8::is_ascii_hexdigit).then_some(at + 5),
        _ => None,
    }
}

/// Where the number ends whose first digit is at `at`.
#[inline]
fn after_number(bytes: &[u8], at: usize) -> Option<usize> {
    let mut end = after_digits(bytes, at)?;
    if bytes[at] == b'0' && end > at + 1 {
        return None;
    }
    if bytes.get(end) == Some(&b'.') {
        end = after_digits(bytes, end + 1)?;
    }
    if let Some(b'e' | b'E') = bytes.get(end) {
        let sign = usize::from(matches!(bytes.get(end + 1), Some(b'+' | b'-')));
        end = after_digits(bytes, end + 1 + sign)?;
    }
    Some(end)
}

/// Where the digits end of which at least one must be at `at`.
#[inline]
fn after_digits(bytes: &[u8], at: usize) -> Option<usize> {
    let mut end = at;
    while let Some(b'0'..=b'9') = bytes.get(end) {
        end += 1;
    }
    (end > at).then_some(end)
}

fn after_word(bytes: &[u8], at: usize, word: &[u8]) -> Option<usize> {
    bytes[at..].starts_with(word).then_some(at + word.len())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::value::RawValue;

    use super::*;
    use crate::depth;

    fn by_serde(data: &[u8]) -> Option<&str> {
        let raw: &RawValue = serde_json::from_slice(data).ok()?;
        depth::is_within(raw.get(), JSON_DEPTH_MAX).then(|| raw.get())
    }

    /// Words of JSON and what is nearly one, so that many of their sequences are valid or fail late.
    fn any_token() -> impl Strategy<Value = Vec<u8>> {
        const FIXED: [&str; 42] = [
            "{",
            "}",
            "[",
            "]",
            ",",
            ":",
            "\"a\":",
            "\"\"",
            "\"",
            "\\",
            "0",
            "-",
            "-0",
            "1",
            "12.5",
            "1e5",
            "1.",
            "e",
            "E+",
            ".",
            "+1",
            "01",
            "true",
            "false",
            "null",
            "tru",
            " ",
            "\n",
            "\t\r ",
            "\u{b}",
            "\"\\n\"",
            "\"\\u12aF\"",
            "\"\\u12g4\"",
            "\"\\ud800\"",
            "\"\\x\"",
            "\"é\"",
            "\u{feff}",
            "{\"a\":1}",
            "[1,2]",
            "{\"b\":[]}",
            "\0",
            "\"\u{1}\"",
        ];
        prop_oneof![
            8 => proptest::sample::select(&FIXED[..]).prop_map(|token| token.as_bytes().to_vec()),
            1 => "\"[ -~]{0,30}\"".prop_map(String::into_bytes),
            1 => proptest::collection::vec(any::<u8>(), 0..20).prop_map(|bytes| [b"\"", &*bytes, b"\""].concat()),
            1 => any::<u8>().prop_map(|byte| vec![byte]),
        ]
    }

    fn any_json() -> impl Strategy<Value = String> {
        let leaf = prop_oneof![
            Just("null".to_owned()),
            Just("true".to_owned()),
            any::<f64>()
                .prop_filter("JSON has no others", |number| number.is_finite())
                .prop_map(|number| number.to_string()),
            any::<i64>().prop_map(|number| number.to_string()),
            any::<String>().prop_map(|text| serde_json::to_string(&text).unwrap()),
        ];
        leaf.prop_recursive(6, 40, 6, |inner| {
            let member = (any::<String>(), inner.clone());
            prop_oneof![
                proptest::collection::vec(inner, 0..6).prop_map(|values| format!("[{}]", values.join(" ,"))),
                proptest::collection::vec(member, 0..6).prop_map(|members| {
                    let members = members
                        .into_iter()
                        .map(|(name, value)| format!("{}: {value}", serde_json::to_string(&name).unwrap()));
                    format!("{{ {}}}", members.collect::<Vec<_>>().join(","))
                }),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

        // A payload that is taken and is no JSON would break the frames of everybody who gets it.
        #[test]
        fn what_serde_takes_is_taken_and_nothing_else(tokens in proptest::collection::vec(any_token(), 0..14)) {
            let data = tokens.concat();
            prop_assert_eq!(value(&data), by_serde(&data));
        }

        #[test]
        fn json_with_one_byte_changed_is_judged_as_serde_judges_it(
            json in any_json(), at: proptest::sample::Index, byte: u8, how in 0..4,
        ) {
            let mut data = json.into_bytes();
            prop_assert_eq!(value(&data), by_serde(&data));
            prop_assert!(value(&data).is_some());
            let at = at.index(data.len());
            match how {
                0 => data[at] = byte,
                1 => data.insert(at, byte),
                2 => data.truncate(at),
                _ => drop(data.remove(at)),
            }
            prop_assert_eq!(value(&data), by_serde(&data));
        }

        #[test]
        fn levels_are_counted_as_they_are_in_a_second_pass(levels in 120usize..136, object: bool, inner in "(1|\\[\\]|\\{\\}|\"\\]\")") {
            let (open, close) = if object { ("{\"a\":", "}") } else { ("[", "]") };
            let data = format!("{}{inner}{}", open.repeat(levels), close.repeat(levels));
            prop_assert_eq!(value(data.as_bytes()), by_serde(data.as_bytes()));
        }
    }

    #[test]
    fn white_space_around_a_value_is_no_part_of_it() {
        assert_eq!(value(b" \t\r\n{\"a\" : [ ] }\n "), Some("{\"a\" : [ ] }"));
        for data in [&b""[..], b" ", b"1 2", b"[1,]", b"{,}", b"{\"a\"}", b"{\"a\":}", b"{1:2}", b"\"a", b"-", b"nul"] {
            assert_eq!(value(data), None, "{data:?}");
        }
    }
}
