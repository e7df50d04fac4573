//! `homing inspect`: a user's devices, inbox and pending messages, or one message.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use homing_protocol::id::EntryId;
use homing_protocol::name::Name;
use serde_json::{Value, json};

use super::api::{Api, segment};
use super::exit::{Exit, Failure, note, print};
use super::migrate::RedisOptions;
use super::pending::{PENDING_MAX, entry, pending};
use super::token::parse_name;
use crate::config::quantity::Span;
use crate::config::{ClientConfig, ClientOptions};
use crate::store::Store;

pub(super) const AFTER_HELP: &str = "\
Devices and the inbox come from the producer API (scope read), pending messages from Redis:
from --redis, or the private one of a node in ./homing-data. Where there is no way to Redis,
they are left out.

Examples:
  homing inspect alice
  homing inspect alice 1700000000000-0
  homing inspect alice --json | jq '.pending[] | select(.attempts > 3)'";

/// Messages of an inbox asked for at once.
const PAGE: usize = 100;
/// Pages searched for one message if only the API can be asked.
const PAGES_MAX: usize = 200;

#[derive(Debug, clap::Args)]
pub(super) struct InspectOptions {
    /// Whose messages.
    #[arg(value_parser = parse_name)]
    user: Name,
    /// The message to show in full.
    id: Option<EntryId>,
    /// Print one JSON document instead of lines.
    #[arg(long)]
    json: bool,
    /// Where the server is [default: http://127.0.0.1:8080].
    #[arg(long, env = "HOMING_URL")]
    url: Option<String>,
    #[command(flatten)]
    redis: RedisOptions,
    #[command(flatten)]
    pub(super) client: ClientOptions,
}

/// Shows a user or a message.
pub(super) async fn inspect(options: InspectOptions, config: ClientConfig) -> Result<(), Failure> {
    let store = options.redis.clone().store(&config)?;
    match &options.id {
        Some(id) => message(&options, &config, store.as_ref(), &id.to_string()).await,
        None => user(&options, &config, store.as_ref()).await,
    }
}

async fn user(options: &InspectOptions, config: &ClientConfig, store: Option<&Store>) -> Result<(), Failure> {
    let api = Api::new(options.url.as_deref(), config)?;
    let about = api.get(&format!("/v1/users/{}", segment(options.user.as_str()))).await?;
    let pending = match store {
        Some(store) => Some(pending(store, &options.user).await?),
        None => None,
    };
    if options.json {
        let pending = pending.map(|pending| {
            let row = |it: &super::pending::Pending| {
                json!({ "device": it.device, "id": it.id, "age_ms": age_ms(&it.id), "idle_ms": it.idle_ms, "attempts": it.attempts })
            };
            pending.iter().map(row).collect::<Vec<_>>()
        });
        return print(json!({ "user": about, "pending": pending }));
    }
    lines(&options.user, &about)?;
    match pending {
        None => note("pending messages are left out: give --redis to see them"),
        Some(pending) if pending.is_empty() => print("no pending messages")?,
        Some(pending) => {
            print(format_args!("pending messages (the oldest {PENDING_MAX} of each device):"))?;
            print(format_args!("  {:<24} {:<24} {:>10} {:>12} attempts", "id", "device", "age", "delivered"))?;
            for it in pending {
                let (age, idle) = (span(age_ms(&it.id)), span(it.idle_ms));
                print(format_args!("  {:<24} {:<24} {age:>10} {idle:>8} ago {}", it.id, it.device, it.attempts))?;
            }
        }
    }
    Ok(())
}

/// Prints what the server said, whatever members it has: a newer one may say more.
fn lines(user: &Name, about: &Value) -> Result<(), Failure> {
    print(format_args!("user {user}, {} messages in the inbox", about["inbox_length"]))?;
    for device in about["devices"].as_array().into_iter().flatten() {
        let members = device.as_object().into_iter().flatten().filter(|(name, _)| *name != "device");
        let members: Vec<String> = members.map(|(name, value)| member(name, value)).collect();
        print(format_args!("device {}: {}", plain(&device["device"]), members.join(" ")))?;
    }
    Ok(())
}

/// Times for people: how long ago, or how long.
fn member(name: &str, value: &Value) -> String {
    match (value.as_u64(), name.strip_suffix("_seen_ms"), name.strip_suffix("_ms")) {
        (Some(ms), Some(name), _) => format!("{name}_seen={}_ago", span(ms_since(ms))),
        (Some(ms), None, Some(name)) => format!("{name}={}", span(ms)),
        _ => format!("{name}={}", plain(value)),
    }
}

async fn message(
    options: &InspectOptions,
    config: &ClientConfig,
    store: Option<&Store>,
    id: &str,
) -> Result<(), Failure> {
    let missing = || Failure::new(Exit::Rejected, format!("{} has no message {id} (any more)", options.user));
    if let Some(store) = store {
        let fields = entry(store, &options.user, id).await?.ok_or_else(missing)?;
        let fields: Vec<Value> = fields.iter().map(|(name, value)| json!({ "field": name, "value": value })).collect();
        if options.json {
            return print(json!({ "id": id, "fields": fields }));
        }
        print(format_args!("id: {id} ({} old)", span(age_ms(id))))?;
        for field in fields {
            print(format_args!("{}: {}", plain(&field["field"]), plain(&field["value"])))?;
        }
        return Ok(());
    }
    let api = Api::new(options.url.as_deref(), config)?;
    let mut cursor = String::new();
    for _ in 0..PAGES_MAX {
        let page =
            api.get(&format!("/v1/users/{}/messages?limit={PAGE}{cursor}", segment(options.user.as_str()))).await?;
        if let Some(found) = page["items"].as_array().into_iter().flatten().find(|item| item["id"] == id) {
            return print(found);
        }
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={}", segment(next)),
            None => return Err(missing()),
        }
    }
    Err(Failure::new(Exit::Other, "the inbox is too long to search by the API: give --redis"))
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Ids that Redis makes begin with the time at which they were appended.
fn age_ms(id: &str) -> u64 {
    ms_since(id.split('-').next().and_then(|ms| ms.parse().ok()).unwrap_or(0))
}

fn ms_since(unix_ms: u64) -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX).saturating_sub(unix_ms)
}

/// Coarse, for people: whole seconds, minutes, hours or days.
fn span(ms: u64) -> String {
    let unit_ms = match ms {
        0..1_000 => 1,
        1_000..120_000 => 1_000,
        120_000..7_200_000 => 60_000,
        7_200_000..172_800_000 => 3_600_000,
        _ => 86_400_000,
    };
    Span(Duration::from_millis(ms / unit_ms * unit_ms)).to_string()
}
