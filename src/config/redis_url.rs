//! The address of a Redis, which may hold a password.

use std::fmt;
use std::str::FromStr;

/// A `redis://`, `rediss://` or `unix://` URL. Printed without its user and password.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisUrl(String);

impl RedisUrl {
    /// The whole URL, password included.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether the connection is encrypted.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.0.starts_with("rediss://")
    }
}

impl FromStr for RedisUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once("://") {
            Some(("redis" | "rediss" | "unix" | "redis+unix", rest)) if !rest.is_empty() => Ok(Self(text.to_owned())),
            _ => Err("expected redis://host:6379/0, rediss://user:password@host or unix:///path".to_owned()),
        }
    }
}

impl fmt::Display for RedisUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, rest) = self.0.split_once("://").unwrap_or(("", &self.0));
        // A Unix socket's password stands in its query; that of a server, which may hold any character, before the `@`.
        let address = match scheme {
            "redis" | "rediss" => rest.rsplit_once('@').map_or(rest, |(_, address)| address),
            _ => rest,
        };
        let address = address.split('?').next().unwrap_or_default();
        write!(formatter, "{scheme}://{address}")
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redis_url_prints_no_password() {
        let print = |text: &str| text.parse::<RedisUrl>().unwrap().to_string();
        assert_eq!(print("redis://:p@ss@db:6379/2"), "redis://db:6379/2");
        assert_eq!(print("rediss://user:secret@db"), "rediss://db");
        assert_eq!(print("redis://user:p?ss@db"), "redis://db");
        assert_eq!(print("unix:///run/redis.sock?pass=s@cret"), "unix:///run/redis.sock");
        assert_eq!(print("unix:///run/redis.sock?pass=secret"), "unix:///run/redis.sock");
        assert!("db:6379".parse::<RedisUrl>().is_err() && "http://db".parse::<RedisUrl>().is_err());
    }
}
