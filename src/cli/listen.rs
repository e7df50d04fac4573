//! `homing listen`: a client of the protocol. Prints messages, acknowledges them, reconnects and resumes.

use homing_protocol::name::Name;

use super::backoff::Backoff;
use super::exit::{Failure, note};
use super::listener::{End, Listener};
use super::token::parse_name;
use crate::config::{ClientConfig, ClientOptions};

pub(super) const AFTER_HELP: &str = "\
Each message is one line of JSON on standard output, as the server sent it: id, data, ts,
attempt, and what else it has. A message is acknowledged once its line was written. One that
comes again (attempt 2 and more) is printed again. Everything else goes to standard error.
When the connection is lost, `listen` reconnects and goes on where it was; only if the first
attempt finds nobody does it give up, with exit code 4.

With --user instead of --token, it makes its own tokens, as `homing token` does, and renews
them.

Examples:
  homing listen --user alice
  homing listen --user alice --device phone-1 --from start --count 10 | jq .data
  homing listen --url wss://push.example.org --token \"$TOKEN\" --no-ack";

/// Where a new device begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum From {
    /// With the oldest message that is there.
    Start,
    /// With the next message.
    End,
}

#[derive(Debug, clap::Args)]
#[group(id = "who", required = true, multiple = false, args = ["token", "user"])]
pub(super) struct ListenOptions {
    /// A token, as your backend or `homing token` makes them.
    #[arg(long, env = "HOMING_TOKEN", hide_env_values = true)]
    pub(super) token: Option<String>,
    /// Make tokens for this user.
    #[arg(long, env = "HOMING_USER", value_parser = parse_name)]
    pub(super) user: Option<Name>,
    /// Name of the secret for these tokens.
    #[arg(long, env = "HOMING_JWT_KID", requires = "user")]
    pub(super) kid: Option<String>,
    /// Audience of these tokens, if the server asks for one [default: jwt_audience of homing.toml].
    #[arg(long, env = "HOMING_JWT_AUDIENCE")]
    pub(super) audience: Option<String>,
    /// Where the server is, with http(s):// or ws(s):// [default: http://127.0.0.1:8080].
    #[arg(long, env = "HOMING_URL")]
    pub(super) url: Option<String>,
    /// The device to be. Each device gets every message; two connections of one device take turns.
    #[arg(long, env = "HOMING_DEVICE", default_value = "default", value_parser = parse_name)]
    pub(super) device: Name,
    /// Where a device that is new begins [default: the server decides].
    #[arg(long, env = "HOMING_FROM")]
    pub(super) from: Option<From>,
    /// How many messages may be on their way at once, 1 to 1024.
    #[arg(long, env = "HOMING_LISTEN_WINDOW")]
    pub(super) window: Option<u16>,
    /// Print without acknowledging: the messages stay, and come again.
    #[arg(long)]
    pub(super) no_ack: bool,
    /// End after this many messages, when their acks are confirmed.
    #[arg(long, env = "HOMING_LISTEN_COUNT", value_name = "N")]
    pub(super) count: Option<u64>,
    #[command(flatten)]
    pub(super) client: ClientOptions,
}

/// Listens until it is told to end, has printed enough, or the server ends it for good.
pub(super) async fn listen(options: ListenOptions, config: ClientConfig) -> Result<(), Failure> {
    let mut listener = Listener::new(options, &config)?;
    let mut backoff = Backoff::default();
    loop {
        let (reason, retry_after) = match listener.connect().await? {
            End::Done => return Ok(()),
            End::Again { reason, retry_after } => (reason, retry_after),
        };
        let pause = backoff.pause(listener.lasted(), retry_after);
        note(format_args!("{reason}; connecting again in {:.1} s", pause.as_secs_f64()));
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = listener.interrupted() => return Ok(()),
        }
    }
}
