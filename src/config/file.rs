//! Reading `homing.toml`.

use std::path::{Path, PathBuf};

use super::error::ConfigError;
use super::options::ServeOptions;

/// The file that is read if none is named.
pub const DEFAULT_FILE: &str = "homing.toml";

/// What the configuration file sets, and its folder, from which file names in it count.
#[derive(Clone, Debug, Default)]
pub struct ConfigFile {
    /// What it sets.
    pub options: ServeOptions,
    /// Its folder.
    pub folder: PathBuf,
}

impl ConfigFile {
    /// Reads the file that was named, or [`DEFAULT_FILE`] if it exists.
    ///
    /// # Errors
    /// [`ConfigError`] if a named file cannot be read, or the file does not parse or sets something unknown.
    pub fn read(named: Option<&Path>) -> Result<Self, ConfigError> {
        let path = named.unwrap_or(Path::new(DEFAULT_FILE));
        match std::fs::read_to_string(path) {
            Ok(text) => Self::parse(&text, path),
            Err(error) if named.is_none() && error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(source) => Err(ConfigError::Unreadable { path: path.to_owned(), source }),
        }
    }

    /// What the text of the file at `path` sets.
    ///
    /// # Errors
    /// [`ConfigError`] if it does not parse or sets something unknown.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let options: ServeOptions = toml::from_str(text)
            .map_err(|error| ConfigError::File { path: path.to_owned(), reason: error.to_string() })?;
        Ok(Self { options, folder: path.parent().unwrap_or(Path::new("")).to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_key_is_refused_by_its_name() {
        for text in ["lisen = '127.0.0.1:1'", "[limits]\nwindwo = 1", "[[api_keys]]\nkey = 'secret'", "api_key = 'x'"] {
            let error = ConfigFile::parse(text, Path::new("homing.toml")).unwrap_err().to_string();
            assert!(error.contains("unknown field"), "{error}");
        }
    }

    #[test]
    fn the_example_file_parses() {
        let example = include_str!("../../homing.example.toml");
        ConfigFile::parse(example, Path::new("homing.toml")).unwrap();
        // Everything in it is commented out; what stands behind the comment signs must parse too.
        let uncommented: Vec<&str> = example
            .lines()
            .map(|line| line.strip_prefix('#').filter(|rest| !rest.starts_with(' ')).unwrap_or(line))
            .collect();
        let file = ConfigFile::parse(&uncommented.join("\n"), Path::new("homing.toml")).unwrap();
        assert!(file.options.listen.is_some() && file.options.limits.window.is_some());
        assert_eq!(file.options.limits.resolve().unwrap(), super::super::Limits::default());
    }
}
