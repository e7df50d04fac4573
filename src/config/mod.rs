//! Configuration: what an operator may set, parsed once into types that cannot be wrong.
//!
//! Owns options, their bounds and their sources. It must not know Redis or sockets. Invariant: a value that was parsed
//! needs no further check.

pub mod client;
pub mod dev;
pub mod error;
pub mod file;
pub mod host;
pub mod limit_options;
pub mod limits;
pub mod options;
pub mod quantity;
pub mod redis_url;
pub mod secret;
pub mod serve;

pub use client::{ClientConfig, ClientOptions};
pub use error::ConfigError;
pub use host::Host;
pub use limits::Limits;
pub use options::{JwtAlgorithm, LogFormat, ServeOptions};
pub use redis_url::RedisUrl;
pub use secret::{ApiKey, JwtSecret, Scope, Secret};
pub use serve::{DevMode, JwtConfig, RedisChoice, ServeConfig};
