//! What `homing serve --dev` says when it is ready: where everything is, and what to type next.

use std::fmt::Write as _;
use std::net::SocketAddr;

use crate::config::serve::DATA_DIR;
use crate::config::{ServeConfig, client};

/// A screen of 24 lines and 100 columns at most. `listen` is the address that was bound, for port 0.
pub(super) fn greeting(config: &ServeConfig, listen: SocketAddr, redis: &redis::Client) -> String {
    let program = std::env::args().next().unwrap_or_else(|| "homing".to_owned());
    text(config, listen, &redis_cli(redis), &program)
}

fn text(config: &ServeConfig, listen: SocketAddr, redis_cli: &str, program: &str) -> String {
    let (prefix, url) = (&config.prefix, format!("http://{listen}"));
    let data_dir = match config.data_dir.to_string_lossy() {
        path if path == DATA_DIR => String::new(),
        path => format!(" --data-dir {path}"),
    };
    let at = if url == client::URL { String::new() } else { format!(" --url {url}") };
    let dev = config.dev.as_ref();
    let secret = |made: Option<&crate::config::Secret>, given: &str| {
        made.map_or(given.to_owned(), |secret| String::from_utf8_lossy(secret.expose()).into_owned())
    };
    let key = secret(dev.and_then(|dev| dev.api_key.as_ref()), "$HOMING_API_KEY");
    let jwt_secret = secret(dev.and_then(|dev| dev.jwt_secret.as_ref()), "(yours)");
    let producers = config.api_listen.map_or(url.clone(), |address| format!("http://{address}"));
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = write!(
        text,
        "\
Homing {version} is ready, for development: on loopback only, its secrets in {folder}.

  Page      {url}/
  Metrics   http://{admin}/metrics
  API key   {key}
  Secret    {jwt_secret}  (signs tokens)

Next, in another terminal and this folder, receive as alice:
  {program} listen --user alice{at}{data_dir}
and in a third one send her something, in any of these ways:
  {program} publish --user alice '{{\"text\":\"hi\"}}'{at}{data_dir}
  curl -H \"Authorization: Bearer {key}\" \\
    -H 'Content-Type: application/json' -d '{{\"data\":{{\"text\":\"hi\"}}}}' \\
    {producers}/v1/users/alice/messages
  {redis_cli} XADD {prefix}:{{alice}}:inbox '*' data '{{\"text\":\"hi\"}}'

A token for a client of your own:
  {program} token --user alice{data_dir}

Ctrl-C ends it.",
        version = env!("CARGO_PKG_VERSION"),
        folder = config.data_dir.display(),
        admin = config.admin_listen,
    );
    text
}

/// How to reach the same Redis by hand.
pub(super) fn redis_cli(redis: &redis::Client) -> String {
    let info = redis.get_connection_info();
    let database = match info.redis_settings().db() {
        0 => String::new(),
        database => format!(" -n {database}"),
    };
    match info.addr() {
        redis::ConnectionAddr::Unix(path) => {
            let folder = std::env::current_dir().unwrap_or_default();
            format!("redis-cli -s {}{database}", path.strip_prefix(&folder).unwrap_or(path).display())
        }
        address => match address.to_string().rsplit_once(':') {
            Some((host, port)) => format!("redis-cli -h {host} -p {port}{database}"),
            None => format!("redis-cli{database}"),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Host, ServeOptions};

    #[test]
    fn the_greeting_fits_a_screen_and_names_the_next_commands() {
        let folder = std::env::temp_dir().join(format!("homing-greeting-{}", crate::config::host::random()));
        let file = folder.join("homing.toml");
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(&file, "").unwrap();
        let options = ServeOptions {
            config: Some(file),
            dev: Some(true),
            data_dir: Some(folder.clone()),
            ..ServeOptions::default()
        };
        let mut config = ServeConfig::resolve(options, &Host { cores: 2, ..Host::current() }).unwrap();
        config.data_dir = DATA_DIR.into();
        let text = text(&config, config.listen, "redis-cli -s homing-data/redis.sock", "target/release/homing");
        std::fs::remove_dir_all(&folder).unwrap();
        assert!(text.lines().count() <= 23, "{text}");
        for line in text.lines() {
            assert!(line.chars().count() <= 100, "{line}");
        }
        for next in ["listen --user alice", "publish --user alice", "curl -H", "XADD homing:{alice}:inbox", "token"] {
            assert!(text.contains(next), "{next}: {text}");
        }
        assert!(!text.contains("--url") && !text.contains("--data-dir"), "{text}");
    }
}
