//! A range of IP addresses, as `10.0.0.0/8` or one address.

use std::net::IpAddr;
use std::str::FromStr;

use thiserror::Error;

/// A range of addresses. An IPv4 address mapped into IPv6 counts as IPv4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    base: IpAddr,
    bits: u32,
}

/// A text that is no range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("expected an address or a range of addresses, as in 10.0.0.0/8 or ::1")]
pub struct CidrError;

impl Cidr {
    /// Whether an address is in the range.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.base, address.to_canonical()) {
            (IpAddr::V4(base), IpAddr::V4(address)) => {
                let host_bits = 32 - self.bits;
                u32::from(base).checked_shr(host_bits) == u32::from(address).checked_shr(host_bits)
            }
            (IpAddr::V6(base), IpAddr::V6(address)) => {
                let host_bits = 128 - self.bits;
                u128::from(base).checked_shr(host_bits) == u128::from(address).checked_shr(host_bits)
            }
            _ => false,
        }
    }
}

impl FromStr for Cidr {
    type Err = CidrError;

    fn from_str(text: &str) -> Result<Self, CidrError> {
        let (base, bits) = text.split_once('/').map_or((text, None), |(base, bits)| (base, Some(bits)));
        let base: IpAddr = base.parse().map_err(|_| CidrError)?;
        let bits_max = if base.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Ok(bits_max), |bits| bits.parse::<u32>().map_err(|_| CidrError))?;
        if bits > bits_max { Err(CidrError) } else { Ok(Self { base, bits }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_contains_exactly_its_addresses() {
        let contains = |range: &str, address: &str| range.parse::<Cidr>().unwrap().contains(address.parse().unwrap());
        assert!(contains("10.0.0.0/8", "10.200.3.4") && !contains("10.0.0.0/8", "11.0.0.1"));
        assert!(contains("127.0.0.1", "127.0.0.1") && !contains("127.0.0.1", "127.0.0.2"));
        assert!(contains("0.0.0.0/0", "8.8.8.8") && !contains("0.0.0.0/0", "::1"));
        assert!(contains("fd00::/8", "fd12::1") && contains("::/0", "::1"));
        assert!(contains("10.0.0.0/8", "::ffff:10.0.0.1"));
        for text in ["", "10.0.0.0/33", "10.0.0/8", "::/129", "example.org"] {
            assert!(text.parse::<Cidr>().is_err(), "{text}");
        }
    }
}
