//! `homing publish`: sends a message by the producer API.

use std::io::Read as _;

use homing_protocol::name::Name;
use serde_json::{Value, json};

use super::api::{Api, segment};
use super::exit::{Exit, Failure, OrExit as _, print};
use super::token::parse_name;
use crate::config::{ClientConfig, ClientOptions};

pub(super) const AFTER_HELP: &str = "\
The API key comes from HOMING_API_KEY, or what HOMING_API_KEY_FILE holds, or from
`homing serve --dev` in ./homing-data. The server's answer, with the message's id, goes to
standard output.

Examples:
  homing publish --user alice '{\"text\":\"hi\"}'
  homing publish --user alice --text 42
  homing publish --user alice --key order-7/shipped --ttl-s 3600 '{\"order\":7}'
  jq -c .event event.json | homing publish --user alice -";

#[derive(Debug, clap::Args)]
pub(super) struct PublishOptions {
    /// Who gets it.
    #[arg(long, env = "HOMING_USER", value_parser = parse_name)]
    user: Name,
    /// What they get: JSON, or else text; `-` reads it from standard input.
    data: String,
    /// Send DATA as text even if it is JSON.
    #[arg(long, env = "HOMING_PUBLISH_TEXT")]
    text: bool,
    /// Your own id of the message: a second one with the same key within 24 hours is not delivered.
    #[arg(long, env = "HOMING_PUBLISH_KEY")]
    key: Option<String>,
    /// Seconds until it expires; 0 reaches connected devices only.
    #[arg(long, env = "HOMING_PUBLISH_TTL_S")]
    ttl_s: Option<u64>,
    /// A JSON object that is delivered beside the data.
    #[arg(long, env = "HOMING_PUBLISH_META", value_name = "JSON")]
    meta: Option<String>,
    /// The only device that gets it.
    #[arg(long, env = "HOMING_PUBLISH_DEVICE", value_parser = parse_name)]
    device: Option<Name>,
    /// Have the server write down what becomes of it.
    #[arg(long, env = "HOMING_PUBLISH_RECEIPT")]
    receipt: bool,
    /// Where the server is [default: http://127.0.0.1:8080].
    #[arg(long, env = "HOMING_URL")]
    url: Option<String>,
    #[command(flatten)]
    pub(super) client: ClientOptions,
}

/// Sends a message.
pub(super) async fn publish(options: PublishOptions, config: ClientConfig) -> Result<(), Failure> {
    let api = Api::new(options.url.as_deref(), &config)?;
    let path = format!("/v1/users/{}/messages", segment(options.user.as_str()));
    let body = body(&options)?;
    print(api.post(&path, &body).await?)
}

fn body(options: &PublishOptions) -> Result<Value, Failure> {
    let data = match options.data.as_str() {
        "-" => {
            let mut text = String::new();
            std::io::stdin().lock().read_to_string(&mut text).or_exit(Exit::Usage)?;
            text
        }
        text => text.to_owned(),
    };
    let data = match serde_json::from_str(&data) {
        Ok(value) if !options.text => value,
        _ => Value::String(data),
    };
    let mut body = json!({ "data": data });
    if let Some(key) = &options.key {
        body["key"] = json!(key);
    }
    if let Some(ttl_s) = options.ttl_s {
        body["ttl_s"] = json!(ttl_s);
    }
    if let Some(device) = &options.device {
        body["device"] = json!(device.as_str());
    }
    if options.receipt {
        body["receipt"] = json!(true);
    }
    if let Some(meta) = &options.meta {
        body["meta"] = serde_json::from_str(meta)
            .map_err(|error| Failure::new(Exit::Usage, format!("--meta is no JSON: {error}")))?;
    }
    Ok(body)
}
