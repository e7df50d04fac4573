use std::path::Path;

use clap::Parser as _;

use super::*;

const SECRET: &str = "0123456789abcdef0123456789abcdef";

#[derive(clap::Parser)]
struct Line {
    #[command(flatten)]
    options: ServeOptions,
}

struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("homing-config-{}", crate::config::host::random()));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap();
    }
}

fn host(variables: &[(&str, &str)]) -> Host {
    let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Host { variables, cores: 8, descriptors_max: Some(1024), hostname: "db-1".into(), random: "abcdef012345".into() }
}

fn with_secrets() -> Host {
    host(&[("HOMING_API_KEY", SECRET), ("HOMING_JWT_SECRET", SECRET)])
}

/// Parses flags; a configuration file that does not exist here keeps a `homing.toml` of the working directory out.
fn resolve(file: &Path, flags: &[&str], host: &Host) -> Result<ServeConfig, ConfigError> {
    let config = file.to_str().unwrap();
    let line = Line::try_parse_from(["serve", "--config", config].iter().chain(flags)).unwrap();
    ServeConfig::resolve(line.options, host)
}

#[test]
fn without_options_the_names_that_others_use_hold() {
    let folder = Folder::new();
    let config = resolve(&folder.file("homing.toml", ""), &[], &with_secrets()).unwrap();
    assert_eq!(config.listen.to_string(), "127.0.0.1:8080");
    assert_eq!(config.admin_listen.to_string(), "127.0.0.1:9090");
    assert_eq!(config.redis, RedisChoice::Embedded);
    assert_eq!(config.data_dir, Path::new("./homing-data"));
    assert_eq!((config.prefix.as_str(), config.node_id.as_str()), ("homing", "db-1-abcdef"));
    assert_eq!((config.shards.get(), config.sessions_max), (4, 512));
    assert_eq!(config.limits, Limits::default());
    assert_eq!(config.api_keys[0].name, "default");
}

#[test]
fn a_flag_wins_over_the_file_and_the_file_over_the_default() {
    let folder = Folder::new();
    let file = folder.file(
        "homing.toml",
        "listen = '127.0.0.1:1'\nadmin_listen = '127.0.0.1:2'\n[limits]\nwindow = 7\nsweep = '30s'\n",
    );
    let config = resolve(&file, &["--listen", "127.0.0.1:3", "--window", "9"], &with_secrets()).unwrap();
    assert_eq!((config.listen.port(), config.admin_listen.port()), (3, 2));
    assert_eq!((config.limits.window, config.limits.sweep.as_secs()), (9, 30));
}

// The environment itself is read by clap; that every option names its variable is what can go wrong here.
#[test]
fn every_option_has_its_environment_variable() {
    use clap::CommandFactory as _;
    for argument in Line::command().get_arguments().filter(|argument| argument.get_id() != "help") {
        let expected = format!("HOMING_{}", argument.get_id().as_str().to_uppercase());
        assert_eq!(argument.get_env().and_then(|name| name.to_str()), Some(expected.as_str()));
        assert_eq!(argument.get_long().unwrap().replace('-', "_"), argument.get_id().as_str());
    }
}

#[test]
fn serve_without_secrets_is_refused() {
    let folder = Folder::new();
    let file = folder.file("homing.toml", "");
    let error = resolve(&file, &[], &host(&[])).unwrap_err();
    assert!(matches!(error, ConfigError::SecretMissing { what: "API key", .. }), "{error}");
    let error = resolve(&file, &[], &host(&[("HOMING_API_KEY", SECRET), ("HOMING_JWT_SECRET", "")])).unwrap_err();
    assert!(matches!(error, ConfigError::SecretMissing { what: "JWT secret", .. }), "{error}");
}

#[test]
fn a_secret_given_twice_or_too_short_is_refused() {
    let folder = Folder::new();
    let file = folder.file("homing.toml", "");
    let secret = folder.file("secret", &format!("{SECRET}\n"));
    let path = secret.to_str().unwrap();
    let ok = host(&[("HOMING_API_KEY_FILE", path), ("HOMING_JWT_SECRET", SECRET)]);
    let config = resolve(&file, &[], &ok).unwrap();
    // The newline at the end of the file is no part of the secret.
    assert_eq!(config.api_keys, resolve(&file, &[], &with_secrets()).unwrap().api_keys);
    let twice = host(&[("HOMING_API_KEY", SECRET), ("HOMING_API_KEY_FILE", path), ("HOMING_JWT_SECRET", SECRET)]);
    assert!(resolve(&file, &[], &twice).is_err());
    let short = host(&[("HOMING_API_KEY", "short"), ("HOMING_JWT_SECRET", SECRET)]);
    assert!(matches!(resolve(&file, &[], &short), Err(ConfigError::SecretTooShort { bytes: 5, .. })));
}

#[test]
fn keys_and_secrets_of_the_file_count_and_repeated_names_are_refused() {
    let folder = Folder::new();
    folder.file("old.key", SECRET);
    let hash = "ab".repeat(32);
    let key = format!("[[api_keys]]\nname = 'ci'\nsha256 = '{hash}'\nscopes = ['publish', 'read']\n");
    let secret = "[[jwt_secrets]]\nkid = 'old'\nfile = 'old.key'\n";
    let config = resolve(&folder.file("homing.toml", &format!("{key}{secret}")), &[], &host(&[])).unwrap();
    assert_eq!(config.api_keys[0].sha256, [0xab; 32]);
    assert_eq!(config.jwt.secrets[0].kid.as_deref(), Some("old"));
    for twice in [format!("{key}{key}{secret}"), format!("{key}{secret}{secret}")] {
        assert!(resolve(&folder.file("homing.toml", &twice), &[], &host(&[])).is_err());
    }
}

#[test]
fn dev_makes_only_the_secrets_that_are_missing() {
    let folder = Folder::new();
    let file = folder.file("homing.toml", "");
    let data_dir = folder.0.join("data");
    let flags = ["--dev", "--data-dir", data_dir.to_str().unwrap()];
    let dev = resolve(&file, &flags, &host(&[])).unwrap().dev.unwrap();
    assert!(dev.api_key.is_some() && dev.jwt_secret.is_some());
    assert_eq!(resolve(&file, &flags, &host(&[])).unwrap().dev.unwrap(), dev);
    let dev = resolve(&file, &flags, &host(&[("HOMING_API_KEY", SECRET)])).unwrap().dev.unwrap();
    assert!(dev.api_key.is_none() && dev.jwt_secret.is_some());
}

#[test]
fn dev_secrets_never_listen_on_a_network() {
    let folder = Folder::new();
    let file = folder.file("homing.toml", "");
    for flags in [["--listen", "0.0.0.0:8080"], ["--admin-listen", "[::]:9090"], ["--api-listen", "192.0.2.1:1"]] {
        let error = resolve(&file, &[&["--dev"], flags.as_slice()].concat(), &with_secrets()).unwrap_err();
        assert!(matches!(error, ConfigError::DevNotOnLoopback { .. }), "{error}");
        resolve(&file, &flags, &with_secrets()).unwrap();
    }
    resolve(&file, &["--dev", "--listen", "[::1]:8080"], &with_secrets()).unwrap();
}

#[test]
fn values_that_would_do_harm_later_are_refused_now() {
    let folder = Folder::new();
    let file = folder.file("homing.toml", "");
    for flags in [
        ["--prefix", "a{b}"],
        ["--prefix", "a*"],
        ["--prefix", ""],
        ["--node-id", "a b"],
        ["--redis-ca", "ca.pem"],
        ["--admin-listen", "127.0.0.1:8080"],
    ] {
        assert!(resolve(&file, &flags, &with_secrets()).is_err(), "{flags:?}");
    }
}
