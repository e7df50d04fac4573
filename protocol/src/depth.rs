//! How deep JSON is nested.

/// Whether valid JSON text is nested at most `levels` deep; arrays and objects count.
///
/// A pass over the bytes, because a `RawValue` was validated without recursion and hence without a depth limit.
#[must_use]
pub fn is_within(json: &str, levels: usize) -> bool {
    // Each level needs an opening and a closing byte.
    if json.len() <= 2 * levels {
        return true;
    }
    let (mut depth, mut in_text, mut escaped) = (0usize, false, false);
    for byte in json.bytes() {
        if in_text {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_text = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => in_text = true,
            b'{' | b'[' => {
                depth += 1;
                if depth > levels {
                    return false;
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_nesting_counts() {
        let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        assert!(is_within(&nested(128), 128));
        assert!(!is_within(&nested(129), 128));
        assert!(!is_within(&format!("{}1{}", r#"{"a":"#.repeat(129), "}".repeat(129)), 128));
        let brackets_in_text = format!(r#"["{}\"[[["]"#, "[".repeat(500));
        assert!(is_within(&brackets_in_text, 128));
        let wide = format!("[{}[]]", "[],".repeat(500));
        assert!(is_within(&wide, 128));
        let escaped_escape = format!(r#"["\\",{}]"#, nested(128));
        assert!(!is_within(&escaped_escape, 128));
    }
}
