//! The secrets of `homing serve --dev`: made once, kept in the data directory, found there by the client commands.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::error::ConfigError;
use super::host;

/// The file's name in the data directory.
pub const DEV_SECRETS_FILE: &str = "dev-secrets.toml";

/// What `--dev` made.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DevSecrets {
    /// A key with every scope.
    pub api_key: String,
    /// Signs tokens.
    pub jwt_secret: String,
}

impl DevSecrets {
    /// Where they are kept.
    #[must_use]
    pub fn path(data_dir: &Path) -> PathBuf {
        data_dir.join(DEV_SECRETS_FILE)
    }

    /// Reads them, if `homing serve --dev` has run in this data directory.
    ///
    /// # Errors
    /// [`ConfigError`] if there is a file that cannot be read or parsed.
    pub fn read(data_dir: &Path) -> Result<Option<Self>, ConfigError> {
        let path = Self::path(data_dir);
        match std::fs::read_to_string(&path) {
            Ok(text) => match toml::from_str(&text) {
                Ok(secrets) => Ok(Some(secrets)),
                // The parser would quote the line, and a secret with it.
                Err(_) => Err(ConfigError::File { path, reason: "not a dev secrets file; delete it".to_owned() }),
            },
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(ConfigError::Unreadable { path, source }),
        }
    }

    /// Reads them, or makes and keeps new ones. The file is for its owner only.
    ///
    /// # Errors
    /// [`ConfigError`] if the file cannot be read or written.
    pub fn read_or_make(data_dir: &Path) -> Result<Self, ConfigError> {
        if let Some(secrets) = Self::read(data_dir)? {
            return Ok(secrets);
        }
        let secrets = Self { api_key: host::random(), jwt_secret: host::random() };
        let path = Self::path(data_dir);
        secrets.write(data_dir, &path).map_err(|source| ConfigError::Unwritable { path, source })?;
        Ok(secrets)
    }

    fn write(&self, data_dir: &Path, path: &Path) -> std::io::Result<()> {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(data_dir)?;
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        write!(
            file,
            "# Made by `homing serve --dev`; delete this file to get new ones.\napi_key = \"{}\"\njwt_secret = \"{}\"\n",
            self.api_key, self.jwt_secret
        )
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn dev_secrets_survive_a_restart_and_are_for_their_owner_only() {
        let folder = std::env::temp_dir().join(format!("homing-dev-{}", host::random()));
        assert!(DevSecrets::read(&folder).unwrap().is_none());
        let made = DevSecrets::read_or_make(&folder).unwrap();
        assert!(DevSecrets::read_or_make(&folder).unwrap() == made);
        let mode = std::fs::metadata(DevSecrets::path(&folder)).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0);
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
