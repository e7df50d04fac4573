//! What an operator writes: `homing.toml`, quantities, addresses of Redis.

use std::net::SocketAddr;
use std::path::Path;

use crate::config::file::ConfigFile;
use crate::config::limit_options::LimitOptions;
use crate::config::quantity::{ByteSize, Span};
use crate::config::{Host, Limits, RedisChoice, RedisUrl, ServeConfig, ServeOptions};

/// Stands in secrets, and must not stand in anything that is printed.
const SECRET: &str = "sEcReT";

/// A configuration file; and its lines as quantities and as parts of addresses.
pub fn configuration(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    check_file(text);
    let mut parts = text.lines().chain(["", "", ""]);
    let mut part = || parts.next().unwrap_or_default();
    check_url(part(), part(), part());
    text.lines().take(16).for_each(check_quantity);
}

fn check_file(text: &str) {
    let mut file = match ConfigFile::parse(text, Path::new("/etc/homing/homing.toml")) {
        Ok(file) => file,
        Err(error) => return assert!(error.to_string().starts_with("/etc/homing/homing.toml: ")),
    };
    assert_eq!(file.folder, Path::new("/etc/homing"));
    // These name files, which a target does not read.
    file.options.jwt_secrets.clear();
    file.options.redis_ca = None;
    let given = file.options.clone();
    let secret = format!("{SECRET}-of-at-least-thirty-two-bytes");
    let mut host = Host { cores: 4, hostname: "host".to_owned(), random: "0123456789ab".to_owned(), ..Host::default() };
    for variable in ["HOMING_API_KEY", "HOMING_JWT_SECRET"] {
        host.variables.insert(variable.to_owned(), secret.clone());
    }
    let config = match ServeConfig::resolve_with(ServeOptions::default(), file, &host) {
        Ok(config) => config,
        Err(error) => return assert!(!error.to_string().contains(SECRET) || text.contains(SECRET)),
    };
    assert!(!format!("{config:?}").contains(SECRET) || text.contains(SECRET), "a secret is printed");
    check_limits(&config.limits, &given.limits);
    let is_safe = |byte: u8| byte.is_ascii_alphanumeric() || b"._-:".contains(&byte);
    assert!(!config.prefix.is_empty() && config.prefix.bytes().all(is_safe));
    assert!(config.sessions_max > 0);
    check_listeners(&config);
    // Those of the file, and the one of the environment.
    assert_eq!(config.api_keys.len(), given.api_keys.len() + 1);
    assert_eq!(config.jwt.secrets.len(), 1);
    for (key, entry) in config.api_keys.iter().zip(&given.api_keys) {
        let hash: String = key.sha256.iter().map(|byte| format!("{byte:02x}")).collect();
        assert!(hash.eq_ignore_ascii_case(&entry.sha256) && !key.scopes.is_empty() && !key.name.is_empty());
        assert_eq!(config.api_keys.iter().filter(|other| other.name == key.name).count(), 1);
    }
    match (&config.redis, &given.redis) {
        (RedisChoice::Embedded, None) => {}
        (RedisChoice::External { url, .. }, Some(given)) => assert_eq!(url, given),
        (choice, given) => panic!("{given:?} became {choice:?}"),
    }
}

fn check_listeners(config: &ServeConfig) {
    let listeners: Vec<SocketAddr> =
        [Some(config.listen), Some(config.admin_listen), config.api_listen].into_iter().flatten().collect();
    for (index, address) in listeners.iter().enumerate() {
        assert!(config.dev.is_none() || address.ip().is_loopback(), "--dev listens on {address}");
        assert!(address.port() == 0 || !listeners[..index].contains(address), "{address} twice");
    }
}

/// What was accepted is within its bounds and is what was written, and limits do not contradict each other.
fn check_limits(limits: &Limits, given: &LimitOptions) {
    assert_eq!(given.resolve().ok().as_ref(), Some(limits));
    assert!(given.window.is_none_or(|window| window == limits.window) && (1..=1_024).contains(&limits.window));
    assert!(limits.in_flight_bytes_max >= limits.payload_bytes_max && limits.payload_bytes_max >= 1_024);
    assert!(limits.ack_timeout_max >= limits.ack_timeout && limits.ack_timeout.as_millis() >= 100);
    assert!(limits.node_dead_after >= 2 * limits.node_heartbeat && limits.node_heartbeat.as_millis() >= 100);
    assert!(limits.drain_grace >= limits.drain_pause + limits.drain_spread);
    assert!(limits.frames_burst >= limits.frames_per_second && limits.frames_per_second > 0);
    if let Some(span) = given.sweep {
        assert_eq!(span.0, limits.sweep);
    }
}

fn check_quantity(text: &str) {
    let end = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    let times = |units: &[(&str, u128)]| {
        let factor = units.iter().find(|(name, _)| *name == unit)?.1;
        digits.parse::<u64>().ok()?;
        u64::try_from(digits.parse::<u128>().ok()?.checked_mul(factor)?).ok()
    };
    let expected_ms = times(&[("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)]);
    let span = text.parse::<Span>().ok();
    assert_eq!(span.map(|span| span.0.as_millis()), expected_ms.map(u128::from), "{text:?}");
    let size = text.parse::<ByteSize>().ok();
    assert_eq!(size.map(|size| size.0 as u64), times(&[("", 1), ("KiB", 1_024), ("MiB", 1_024 * 1_024)]), "{text:?}");
    // What is printed can be typed.
    if let Some(span) = span {
        assert_eq!(span.to_string().parse(), Ok(span));
    }
    if let Some(size) = size {
        assert_eq!(size.to_string().parse(), Ok(size));
    }
}

/// No address shows its password, however odd that is.
fn check_url(before: &str, after: &str, other: &str) {
    if [before, after, other].iter().any(|part| part.contains(SECRET)) {
        return;
    }
    let urls = [
        format!("redis://{other}:{before}{SECRET}{after}@host:6379/0"),
        format!("rediss://:{before}{SECRET}{after}@host"),
        format!("unix:///run/redis.sock?pass={before}{SECRET}{after}"),
        format!("redis+unix:///run/redis.sock?db=1&user={other}&pass={before}{SECRET}{after}"),
    ];
    for text in urls {
        let Ok(url) = text.parse::<RedisUrl>() else { panic!("{text:?} is no address") };
        assert_eq!(url.expose(), text);
        assert_eq!(url.is_tls(), text.starts_with("rediss:"));
        for printed in [format!("{url}"), format!("{url:?}")] {
            assert!(!printed.contains(SECRET), "{printed:?} shows the password of {text:?}");
        }
    }
    if let Ok(url) = other.parse::<RedisUrl>() {
        assert_eq!(url.expose(), other);
    }
}
