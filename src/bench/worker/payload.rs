//! The payload of a measured message: its run, the time it was intended for, its number, and filling.

use std::io::Write as _;

/// Smallest payload: what it needs to say.
pub(crate) const SIZE_MIN: usize = 64;

/// What a received payload says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) intended_us: u64,
    /// Of this user's messages, counted from 0.
    pub(crate) number: u32,
}

/// Writes payloads of one run.
#[derive(Clone, Debug)]
pub(crate) struct Payloads {
    head: String,
    filling: String,
    size: usize,
}

impl Payloads {
    /// Of `size` bytes each, at least [`SIZE_MIN`].
    pub(crate) fn new(run: &str, size: usize) -> Self {
        Self { head: format!(r#"{{"r":"{run}","t":"#), filling: "x".repeat(size), size }
    }

    /// Appends one, a JSON object.
    pub(crate) fn push(&self, output: &mut Vec<u8>, told: Told) {
        let begin = output.len();
        output.extend_from_slice(self.head.as_bytes());
        // Writing to a Vec cannot fail.
        let _ = write!(output, r#"{},"n":{},"x":""#, told.intended_us, told.number);
        let missing = self.size.saturating_sub(output.len() - begin + 2);
        output.extend_from_slice(&self.filling.as_bytes()[..missing]);
        output.extend_from_slice(br#""}"#);
    }

    /// Reads one of this run, as it was written.
    pub(crate) fn read(&self, data: &[u8]) -> Option<Told> {
        let rest = data.strip_prefix(self.head.as_bytes())?;
        let (intended_us, rest) = number(rest)?;
        let (number, _) = number(rest.strip_prefix(br#","n":"#)?)?;
        Some(Told { intended_us, number: u32::try_from(number).ok()? })
    }
}

fn number(text: &[u8]) -> Option<(u64, &[u8])> {
    let end = text.iter().position(|byte| !byte.is_ascii_digit()).filter(|end| *end > 0)?;
    let digits = text[..end].iter();
    let value = digits.fold(0_u64, |value, digit| value.wrapping_mul(10).wrapping_add(u64::from(digit - b'0')));
    Some((value, &text[end..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_has_its_size_and_is_read_as_written() {
        for size in [SIZE_MIN, 100, 5_000] {
            let payloads = Payloads::new("0123456789ab", size);
            let told = Told { intended_us: 9_999_999_999_999, number: 1_234_567 };
            let mut written = Vec::new();
            payloads.push(&mut written, told);
            assert_eq!(written.len(), size);
            assert!(serde_json::from_slice::<serde_json::Value>(&written).is_ok());
            assert_eq!(payloads.read(&written), Some(told));
            assert_eq!(Payloads::new("0123456789ac", size).read(&written), None);
        }
    }
}
