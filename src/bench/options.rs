//! The options of `homing bench`.

use std::num::NonZeroU32;
use std::path::PathBuf;

use homing_protocol::limits::BATCH_MESSAGES_MAX;

use super::values::{NodeCount, Rate, Via, rate, size};
use crate::config::RedisUrl;
use crate::config::quantity::Span;

/// Measurements, and the processes that they consist of.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum BenchCommand {
    /// Memory and CPU of sessions that have nothing to do.
    Idle(IdleOptions),
    /// Latency and CPU of messages to connected devices, at a fixed rate or as fast as possible.
    Deliver(DeliverOptions),
    /// Users that were away with messages waiting all come back.
    Replay(ReplayOptions),
    /// All clients are cut off and reconnect at once.
    Storm(StormOptions),
    /// Many sockets over several nodes, and a message to each every few seconds.
    Sockets(SocketsOptions),
    /// A message to everybody every few seconds, acknowledged by everybody.
    Broadcast(BroadcastOptions),
    /// Users who follow many topics each, and messages to topics; with --offline, a topic that a crowd follows from afar.
    Topics(TopicsOptions),
    /// A plain load on any cluster, until Ctrl-C or for some time.
    Load(LoadOptions),
    /// What bare commands cost Redis (XADD with notification, XREADGROUP, XACK), and what bare sockets cost.
    Floor(FloorOptions),
    /// The standard set, several times each, written as a document.
    Suite(SuiteOptions),
    /// A worker process of a measurement; not for people.
    #[command(hide = true)]
    Worker,
    /// A node of a measurement, which ends when its parent does; not for people.
    #[command(hide = true)]
    Node(NodeOptions),
}

/// What is measured: processes of our own, or somebody's cluster.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Cluster")]
pub struct ClusterOptions {
    /// A node of your own cluster (several times for several) [default: nodes are started, and thrown away after].
    #[arg(long, value_name = "URL")]
    pub url: Vec<String>,
    /// The secret that this cluster verifies tokens with.
    #[arg(long, value_name = "FILE")]
    pub jwt_secret_file: Option<PathBuf>,
    /// Name of that secret, if it has one.
    #[arg(long)]
    pub kid: Option<String>,
    /// Audience of tokens, if the cluster asks for one.
    #[arg(long)]
    pub audience: Option<String>,
    /// An API key of this cluster with the scope publish.
    #[arg(long, value_name = "FILE")]
    pub api_key_file: Option<PathBuf>,
    /// The cluster's Redis, for XADD and to see that everything was acknowledged [default: one is started, on tmpfs].
    #[arg(long, value_name = "URL")]
    pub redis: Option<RedisUrl>,
    /// First part of every key in Redis.
    #[arg(long, default_value = crate::config::serve::PREFIX)]
    pub prefix: String,
    /// Nodes to start, a number or auto: one for each 16,000 devices.
    #[arg(long, default_value = "auto", value_name = "N|auto")]
    pub nodes: NodeCount,
    /// First port of these nodes: each takes the next two that are free, for clients and for metrics [default: any].
    #[arg(long, value_name = "PORT")]
    pub ports: Option<u16>,
    /// Shards of each of them.
    #[arg(long, default_value = "1")]
    pub shards: NonZeroU32,
    /// A further argument of `homing serve` for them (several times for several): --serve-arg=--window=32.
    #[arg(long = "serve-arg", value_name = "ARG", allow_hyphen_values = true)]
    pub serve_args: Vec<String>,
}

/// Who connects.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Clients")]
pub struct ClientsOptions {
    /// Users.
    #[arg(long, default_value = "1000")]
    pub users: NonZeroU32,
    /// Devices of each.
    #[arg(long, default_value = "1", value_parser = clap::value_parser!(u32).range(1..=20))]
    pub devices: u32,
    /// Processes that hold the clients [default: one for each 14,000].
    #[arg(long)]
    pub workers: Option<NonZeroU32>,
    /// Connections that are opened each second at the beginning.
    #[arg(long, default_value = "2000", value_name = "PER SECOND")]
    pub connect_rate: NonZeroU32,
    /// Clients ask for confirmed acks, and the confirmations are counted.
    #[arg(long)]
    pub confirm: bool,
}

impl ClientsOptions {
    /// Users with one device each, which ask for no confirmations.
    pub(crate) fn one_device_each(users: NonZeroU32, workers: Option<NonZeroU32>, connect_rate: NonZeroU32) -> Self {
        Self { users, devices: 1, workers, connect_rate, confirm: false }
    }
}

/// Who publishes, and what.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Messages")]
pub struct MessagesOptions {
    /// How messages are published.
    #[arg(long, value_enum, default_value = "http")]
    pub via: Via,
    /// Connections of producers.
    #[arg(long, default_value = "16")]
    pub producers: NonZeroU32,
    /// Messages in each HTTP request.
    #[arg(long, default_value = "1", value_parser = clap::value_parser!(u32).range(1..=BATCH_MESSAGES_MAX as i64))]
    pub batch: u32,
    /// Bytes of payload.
    #[arg(long, default_value = "100", value_parser = size)]
    pub size: usize,
}

/// What is done with the figures.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Output")]
pub struct OutputOptions {
    /// Print the figures as JSON instead of a table.
    #[arg(long)]
    pub json: bool,
    /// Write a page with figures and plots.
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
}

/// `homing bench idle`.
#[derive(Clone, Debug, clap::Args)]
pub struct IdleOptions {
    /// What is measured.
    #[command(flatten)]
    pub cluster: ClusterOptions,
    /// Who connects.
    #[command(flatten)]
    pub clients: ClientsOptions,
    /// Steps in which clients connect; memory is taken after each.
    #[arg(long, default_value = "5")]
    pub steps: NonZeroU32,
    /// How long idleness is watched.
    #[arg(long, default_value = "30s")]
    pub time: Span,
    /// What is done with the figures.
    #[command(flatten)]
    pub output: OutputOptions,
}

/// `homing bench deliver`.
#[derive(Clone, Debug, clap::Args)]
pub struct DeliverOptions {
    /// What is measured.
    #[command(flatten)]
    pub cluster: ClusterOptions,
    /// Who connects.
    #[command(flatten)]
    pub clients: ClientsOptions,
    /// Who publishes, and what.
    #[command(flatten)]
    pub messages: MessagesOptions,
    /// Messages each second, or max.
    #[arg(long, default_value = "1000", value_name = "N|max")]
    pub rate: Rate,
    /// With --rate max: messages that may be on their way.
    #[arg(long, default_value = "1000")]
    pub in_flight: NonZeroU32,
    /// How long is measured.
    #[arg(long, default_value = "30s")]
    pub time: Span,
    /// How long messages flow before that.
    #[arg(long, default_value = "3s")]
    pub warm_up: Span,
    /// Do not measure what bare commands cost on the same Redis, before and after.
    #[arg(long)]
    pub no_floor: bool,
    /// What is done with the figures.
    #[command(flatten)]
    pub output: OutputOptions,
}

/// `homing bench replay`.
#[derive(Clone, Debug, clap::Args)]
pub struct ReplayOptions {
    /// What is measured.
    #[command(flatten)]
    pub cluster: ClusterOptions,
    /// Who connects.
    #[command(flatten)]
    pub clients: ClientsOptions,
    /// Who publishes, and what.
    #[command(flatten)]
    pub messages: MessagesOptions,
    /// Messages that wait for each user. An inbox keeps 10,000 unless the cluster is told otherwise.
    #[arg(long, default_value = "100", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub queued: u32,
    /// Clients that come back each second, or max: all at once.
    #[arg(long, default_value = "max", value_name = "N|max")]
    pub return_rate: Rate,
    /// What is done with the figures.
    #[command(flatten)]
    pub output: OutputOptions,
}

/// `homing bench storm`.
#[derive(Clone, Debug, clap::Args)]
pub struct StormOptions {
    /// What is measured.
    #[command(flatten)]
    pub cluster: ClusterOptions,
    /// Who connects.
    #[command(flatten)]
    pub clients: ClientsOptions,
    /// What is done with the figures.
    #[command(flatten)]
    pub output: OutputOptions,
}

/// `homing bench broadcast`.
#[derive(Clone, Debug, clap::Args)]
pub struct BroadcastOptions {
    /// What is measured.
    #[command(flatten)]
    pub cluster: ClusterOptions,
    /// Users, each with one device.
    #[arg(long, default_value = "10000")]
    pub users: NonZeroU32,
    /// Processes that hold the clients [default: one for each 14,000].
    #[arg(long)]
    pub workers: Option<NonZeroU32>,
    /// Connections that are opened each second at the beginning.
    #[arg(long, default_value = "2000", value_name = "PER SECOND")]
    pub connect_rate: NonZeroU32,
    /// Time between two broadcasts.
    #[arg(long, default_value = "5s")]
    pub every: Span,
    /// Bytes of payload.
    #[arg(long, default_value = "100", value_parser = size)]
    pub size: usize,
    /// How long is measured.
    #[arg(long, default_value = "60s")]
    pub time: Span,
    /// What is done with the figures.
    #[command(flatten)]
    pub output: OutputOptions,
}

/// `homing bench topics`.
#[derive(Clone, Debug, clap::Args)]
pub struct TopicsOptions {
    /// What is measured. An API key needs the scopes manage and read.
    #[command(flatten)]
    pub cluster: ClusterOptions,
    /// Users, each with one device.
    #[arg(long, default_value = "1000")]
    pub users: NonZeroU32,
    /// Topics.
    #[arg(long, default_value = "10000", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub topics: u32,
    /// Topics that each user follows.
    #[arg(long, default_value = "100")]
    pub each: NonZeroU32,
    /// Followers of one more topic who never connect: what a message to it costs is measured without and with them.
    #[arg(long, default_value = "0", value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    pub offline: u32,
    /// Processes that hold the clients [default: one for each 14,000].
    #[arg(long)]
    pub workers: Option<NonZeroU32>,
    /// Connections that are opened each second at the beginning.
    #[arg(long, default_value = "2000", value_name = "PER SECOND")]
    pub connect_rate: NonZeroU32,
    /// How long sessions then come to rest: their early sweeps are over after 8 s.
    #[arg(long, default_value = "10s")]
    pub rest: Span,
    /// Messages each second, each to a topic by lot.
    #[arg(long, default_value = "1000", value_parser = rate)]
    pub rate: f64,
    /// Bytes of payload.
    #[arg(long, default_value = "100", value_parser = size)]
    pub size: usize,
    /// How long is measured.
    #[arg(long, default_value = "30s")]
    pub time: Span,
    /// How long messages flow before that.
    #[arg(long, default_value = "3s")]
    pub warm_up: Span,
    /// What is done with the figures.
    #[command(flatten)]
    pub output: OutputOptions,
}

/// `homing bench sockets`.
#[derive(Clone, Debug, clap::Args)]
pub struct SocketsOptions {
    /// What is measured.
    #[command(flatten)]
    pub cluster: ClusterOptions,
    /// Users, each with one device.
    #[arg(long, default_value = "128000")]
    pub users: NonZeroU32,
    /// Processes that hold the clients [default: one for each 14,000].
    #[arg(long)]
    pub workers: Option<NonZeroU32>,
    /// Connections that are opened each second at the beginning.
    #[arg(long, default_value = "2000", value_name = "PER SECOND")]
    pub connect_rate: NonZeroU32,
    /// Time between two messages to each user.
    #[arg(long, default_value = "5s")]
    pub every: Span,
    /// How messages are published.
    #[arg(long, value_enum, default_value = "xadd")]
    pub via: Via,
    /// By XADD: what falls due within such a time is written together at its end, as by a program that looks for what is
    /// to be pushed so often; 0s: each on its own. Latencies count from when each was due.
    #[arg(long, default_value = "2ms")]
    pub gather: Span,
    /// Bytes of payload.
    #[arg(long, default_value = "100", value_parser = size)]
    pub size: usize,
    /// How long is measured.
    #[arg(long, default_value = "10m")]
    pub time: Span,
    /// How long messages flow before that.
    #[arg(long, default_value = "10s")]
    pub warm_up: Span,
    /// What is done with the figures.
    #[command(flatten)]
    pub output: OutputOptions,
}

/// `homing bench load`.
#[derive(Clone, Debug, clap::Args)]
pub struct LoadOptions {
    /// What is measured.
    #[command(flatten)]
    pub cluster: ClusterOptions,
    /// Clients, each of a user of its own.
    #[arg(short, long, default_value = "1000")]
    pub amount: NonZeroU32,
    /// Connections that are opened each second.
    #[arg(short = 'c', long, default_value = "500")]
    pub per_second: NonZeroU32,
    /// Processes that hold the clients [default: one for each 14,000].
    #[arg(short, long)]
    pub workers: Option<NonZeroU32>,
    /// Time between two messages to each client [default: no messages].
    #[arg(short = 't', long)]
    pub interval: Option<Span>,
    /// Characters of each message.
    #[arg(long, default_value = "100", value_parser = size)]
    pub characters: usize,
    /// How messages are published.
    #[arg(long, value_enum, default_value = "http")]
    pub via: Via,
    /// Connections of producers.
    #[arg(long, default_value = "16")]
    pub producers: NonZeroU32,
    /// How long [default: until Ctrl-C].
    #[arg(long)]
    pub time: Option<Span>,
    /// Clients ask for confirmed acks, and the confirmations are counted.
    #[arg(long)]
    pub confirm: bool,
    /// What is done with the figures.
    #[command(flatten)]
    pub output: OutputOptions,
}

/// `homing bench floor`.
#[derive(Clone, Debug, clap::Args)]
pub struct FloorOptions {
    /// Redis [default: one is started, on tmpfs]. It must announce appends: notify-keyspace-events with K and t.
    #[arg(long, value_name = "URL")]
    pub redis: Option<RedisUrl>,
    /// Bytes of payload.
    #[arg(long, default_value = "100", value_parser = size)]
    pub size: usize,
    /// How long is measured.
    #[arg(long, default_value = "5s")]
    pub time: Span,
    /// What is done with the figures.
    #[command(flatten)]
    pub output: OutputOptions,
}

/// `homing bench suite`.
#[derive(Clone, Debug, clap::Args)]
pub struct SuiteOptions {
    /// The document.
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// Folder for a page with plots of each run.
    #[arg(long, value_name = "FOLDER")]
    pub html: Option<PathBuf>,
    /// Runs of each measurement; the document holds their median and their spread.
    #[arg(long, default_value = "3")]
    pub runs: NonZeroU32,
    /// Seconds of each run that has a duration.
    #[arg(long, default_value = "30")]
    pub seconds: NonZeroU32,
    /// Percent of the usual number of clients: less, to try it out.
    #[arg(long, default_value = "100", value_parser = clap::value_parser!(u32).range(1..=100))]
    pub scale: u32,
    /// Only measurements with this in their name.
    #[arg(long, value_name = "TEXT")]
    pub only: Option<String>,
    /// Sockets of the run with many sockets; 0 leaves it out.
    #[arg(long, default_value = "0")]
    pub sockets: u32,
}

/// `homing bench node`.
#[derive(Clone, Debug, clap::Args)]
pub struct NodeOptions {
    /// Process that this one must not outlive.
    #[arg(long)]
    pub parent: u32,
    /// Arguments of `homing serve`.
    #[arg(last = true)]
    pub arguments: Vec<String>,
}
