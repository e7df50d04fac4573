//! What a seed does: a list of periods, each calm or with one fault.

use std::time::Duration;

/// Every fault that the nemesis knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    /// `kill -9` of a node, and a new start.
    NodeKilled,
    /// SIGSTOP of a node for longer than its heartbeat, SIGCONT.
    NodeStopped,
    /// SIGTERM of one node after the other, each started again when it has ended.
    RollingRestart,
    /// One node's connections to Redis: nothing passes, and nobody is told.
    RedisSilent,
    /// Reset, and refused when made again.
    RedisRefused,
    /// Reset all at once; new ones pass.
    RedisReset,
    /// Half-open: silent for ever, their end never arrives; new ones pass.
    RedisHalfOpen,
    /// Every piece comes later.
    RedisLate,
    /// A few kilobytes a second.
    RedisThrottled,
    /// Commands run, answers are held back.
    RedisAnswersLost,
    /// The same for one node's clients and producers.
    ClientsSilent,
    ClientsRefused,
    ClientsReset,
    ClientsHalfOpen,
    ClientsLate,
    ClientsThrottled,
    /// Producers do not learn that their messages were accepted, and retry with the same key.
    ClientsAnswersLost,
    /// `kill -9` of redis-server, and a new start on its log.
    RedisKilled,
    /// SIGSTOP of redis-server.
    RedisPaused,
    /// `maxmemory` below what is used.
    RedisOutOfMemory,
    /// The disk of the log is full.
    DiskFull,
    /// FLUSHALL.
    FlushedAll,
    /// DEL of one user's inbox.
    InboxDeleted,
    /// XGROUP DESTROY of one device.
    GroupDestroyed,
    /// FUNCTION FLUSH.
    FunctionsFlushed,
    /// `notify-keyspace-events ""`.
    FlagsCleared,
    /// CLIENT KILL TYPE pubsub.
    SubscriptionsKilled,
    /// Some clients read a frame every few seconds.
    SlowReader,
    /// Some clients never ack.
    NeverAcks,
    /// Some devices are on two nodes at once, both again and again.
    Twin,
    /// Ten thousand further clients, twice at once.
    Storm,
}

/// Faults of one family hit the same thing; a plan takes one of each in turn, so that a short one is varied.
const FAMILIES: [&[Kind]; 6] = [
    &[Kind::NodeKilled, Kind::NodeStopped, Kind::RollingRestart],
    &[
        Kind::RedisSilent,
        Kind::RedisRefused,
        Kind::RedisReset,
        Kind::RedisHalfOpen,
        Kind::RedisLate,
        Kind::RedisThrottled,
        Kind::RedisAnswersLost,
    ],
    &[
        Kind::ClientsSilent,
        Kind::ClientsRefused,
        Kind::ClientsReset,
        Kind::ClientsHalfOpen,
        Kind::ClientsLate,
        Kind::ClientsThrottled,
        Kind::ClientsAnswersLost,
    ],
    &[Kind::RedisKilled, Kind::RedisPaused, Kind::RedisOutOfMemory, Kind::DiskFull],
    &[
        Kind::FlushedAll,
        Kind::InboxDeleted,
        Kind::GroupDestroyed,
        Kind::FunctionsFlushed,
        Kind::FlagsCleared,
        Kind::SubscriptionsKilled,
    ],
    &[Kind::SlowReader, Kind::NeverAcks, Kind::Twin, Kind::Storm],
];

impl Kind {
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        FAMILIES.into_iter().flatten().copied()
    }

    /// As it stands in the history.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::NodeKilled => "node_killed",
            Self::NodeStopped => "node_stopped",
            Self::RollingRestart => "rolling_restart",
            Self::RedisSilent => "redis_silent",
            Self::RedisRefused => "redis_refused",
            Self::RedisReset => "redis_reset",
            Self::RedisHalfOpen => "redis_half_open",
            Self::RedisLate => "redis_late",
            Self::RedisThrottled => "redis_throttled",
            Self::RedisAnswersLost => "redis_answers_lost",
            Self::ClientsSilent => "clients_silent",
            Self::ClientsRefused => "clients_refused",
            Self::ClientsReset => "clients_reset",
            Self::ClientsHalfOpen => "clients_half_open",
            Self::ClientsLate => "clients_late",
            Self::ClientsThrottled => "clients_throttled",
            Self::ClientsAnswersLost => "clients_answers_lost",
            Self::RedisKilled => "redis_killed",
            Self::RedisPaused => "redis_paused",
            Self::RedisOutOfMemory => "redis_out_of_memory",
            Self::DiskFull => "disk_full",
            Self::FlushedAll => "flushed_all",
            Self::InboxDeleted => "inbox_deleted",
            Self::GroupDestroyed => "group_destroyed",
            Self::FunctionsFlushed => "functions_flushed",
            Self::FlagsCleared => "flags_cleared",
            Self::SubscriptionsKilled => "subscriptions_killed",
            Self::SlowReader => "slow_clients",
            Self::NeverAcks => "never_acks",
            Self::Twin => "twins",
            Self::Storm => "connection_storm",
        }
    }

    /// Shortest and longest time that it lasts, in seconds.
    fn seconds(self) -> (u64, u64) {
        match self {
            // Other nodes judge a node dead after 6 s.
            Self::NodeStopped => (7, 20),
            Self::RedisPaused => (1, 30),
            // Redis's answers time out after 5 s; below and above that different code runs.
            Self::RedisSilent | Self::RedisAnswersLost | Self::ClientsSilent | Self::ClientsAnswersLost => (3, 20),
            Self::RedisKilled | Self::NodeKilled => (1, 8),
            Self::SlowReader | Self::NeverAcks | Self::Twin => (4, 40),
            // At an instant, or as long as it takes.
            Self::RollingRestart
            | Self::Storm
            | Self::FlushedAll
            | Self::InboxDeleted
            | Self::GroupDestroyed
            | Self::FunctionsFlushed
            | Self::FlagsCleared
            | Self::SubscriptionsKilled
            | Self::RedisReset
            | Self::RedisHalfOpen
            | Self::ClientsReset
            | Self::ClientsHalfOpen => (2, 8),
            _ => (3, 15),
        }
    }

    /// Whether it fits into half a minute.
    fn is_quick(self) -> bool {
        !matches!(self, Self::RollingRestart | Self::Storm | Self::NodeStopped)
    }
}

/// One part of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Period {
    /// `None`: calm.
    pub(crate) fault: Option<Kind>,
    pub(crate) length: Duration,
    /// Chooses the target among as many as there are.
    pub(crate) pick: usize,
}

/// Time that clients and nodes are given after a fault, on average; for fitting a plan into its time.
const RECOVERY: Duration = Duration::from_secs(6);
const RECOVERY_SHORT: Duration = Duration::from_secs(2);
const CALM_SECONDS: std::ops::Range<u64> = 5..20;
const CALM_SECONDS_SHORT: std::ops::Range<u64> = 3..5;

/// Draws the periods of a seed. About a quarter are calm; faults come from a shuffled deck, each once before any twice.
pub(crate) fn draw(seed: u64, length: Duration, short: bool, allowed: impl Fn(Kind) -> bool) -> Vec<Period> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let allowed = |kind: &Kind| allowed(*kind) && (!short || kind.is_quick());
    let (mut periods, mut deck, mut left) = (Vec::new(), Vec::new(), length);
    while left > Duration::ZERO {
        // A short one has no time for more than the calm at its beginning.
        let calm = periods.is_empty() || (!short && rng.u8(..4) == 0);
        let fault = if calm {
            None
        } else {
            if deck.is_empty() {
                deck = shuffled_deck(&mut rng, allowed);
            }
            deck.pop()
        };
        let seconds = match fault {
            None if short => rng.u64(CALM_SECONDS_SHORT),
            None => rng.u64(CALM_SECONDS),
            Some(kind) if short => kind.seconds().0,
            Some(kind) => rng.u64(kind.seconds().0..=kind.seconds().1),
        };
        let length = Duration::from_secs(seconds);
        periods.push(Period { fault, length, pick: rng.usize(..) });
        let recovery = match fault {
            None => Duration::ZERO,
            Some(_) if short => RECOVERY_SHORT,
            Some(_) => RECOVERY,
        };
        left = left.saturating_sub(length + recovery);
    }
    periods
}

/// All allowed faults, families by turns.
fn shuffled_deck(rng: &mut fastrand::Rng, allowed: impl Fn(&Kind) -> bool) -> Vec<Kind> {
    let mut families: Vec<Vec<Kind>> =
        FAMILIES.iter().map(|family| family.iter().copied().filter(&allowed).collect()).collect();
    families.iter_mut().for_each(|family| rng.shuffle(family));
    let mut deck = Vec::new();
    while families.iter().any(|family| !family.is_empty()) {
        rng.shuffle(&mut families);
        deck.extend(families.iter_mut().filter_map(Vec::pop));
    }
    deck.reverse();
    deck
}

#[test]
fn a_seed_always_makes_the_same_plan_and_a_long_one_has_every_fault() {
    let hour = Duration::from_secs(3600);
    let plan = draw(7, hour, false, |_| true);
    assert_eq!(plan, draw(7, hour, false, |_| true));
    assert_ne!(plan, draw(8, hour, false, |_| true));
    for kind in Kind::all() {
        assert!(plan.iter().any(|period| period.fault == Some(kind)), "{kind:?} never happens");
    }
    let calm = plan.iter().filter(|period| period.fault.is_none()).count();
    assert!((plan.len() / 8..plan.len() / 2).contains(&calm), "{calm} of {} are calm", plan.len());
}
