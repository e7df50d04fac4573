//! Who is connected: groups of clients, the same at every time of a run.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;

use super::client::{Ground, Group, Mood, Spec, live};
use super::followers::whims;
use super::harness::Token;
use super::recorder::Recorder;
use super::settings::Settings;

/// Users of each group that may misbehave, or of whom one device may be connected.
const MISBEHAVING: usize = 4;
/// Devices of a user of whom one may be connected.
const RIVALS: usize = 2;
/// One of so many other users has movers.
const MOVERS_ONE_IN: usize = 8;
/// Where the numbers of a storm's clients begin, above all others.
const STORM_NUMBERS: u64 = 1_000_000;
/// Tokens outlive a run by this.
const TOKEN_SLACK: Duration = Duration::from_secs(3600);

/// The clients of a run.
#[derive(Debug)]
pub(crate) struct Population {
    mood: watch::Sender<Mood>,
    ground: Ground,
    specs: Vec<Spec>,
    tasks: JoinSet<()>,
    seed: u64,
    token_life: Duration,
}

impl Population {
    /// Draws the clients; they do not connect yet.
    pub(crate) fn new(settings: &Settings, recorder: Arc<Recorder>, nodes: Vec<(String, SocketAddr)>) -> Self {
        let (mood, receiver) = watch::channel(Mood::default());
        let ground = Ground { recorder, nodes: nodes.into(), mood: receiver, connected: Arc::new(AtomicUsize::new(0)) };
        let token_life = settings.length * 3 + TOKEN_SLACK;
        let mut population =
            Self { mood, ground, specs: Vec::new(), tasks: JoinSet::new(), seed: settings.seed, token_life };
        for number in 0..MISBEHAVING {
            population.add(&format!("slow-{number}"), "phone", Group::Slow);
            population.add(&format!("never-{number}"), "phone", Group::NeverAcks);
            population.add(&format!("twin-{number}"), "phone", Group::Twin);
            population.add(&format!("twin-{number}"), "phone", Group::SecondTwin);
            population.add(&format!("rival-{number}"), "phone", Group::Rival);
            population.add(&format!("rival-{number}"), "laptop", Group::Rival);
        }
        let users = settings.users.saturating_sub(4 * MISBEHAVING).max(1);
        let mut number = 0;
        while population.specs.len() < settings.clients {
            let user = number % users;
            let group = if user.is_multiple_of(MOVERS_ONE_IN) { Group::Mover } else { Group::Healthy };
            population.add(&format!("user-{user}"), &format!("device-{}", number / users), group);
            number += 1;
        }
        population
    }

    fn add(&mut self, user: &str, device: &str, group: Group) {
        let number = self.specs.len() as u64;
        let spec = spec(user, device, group, number, self.seed, self.token_life);
        self.specs.push(spec);
    }

    pub(crate) fn start(&mut self) {
        for spec in &self.specs {
            self.tasks.spawn(live(spec.clone(), self.ground.clone()));
        }
    }

    /// Every device of the run once, as user and device.
    pub(crate) fn devices(&self) -> Vec<(String, String)> {
        let first = self.specs.iter().filter(|spec| spec.group != Group::SecondTwin);
        first.map(|spec| (spec.user.clone(), spec.device.clone())).collect()
    }

    /// Every user once.
    pub(crate) fn users(&self) -> Vec<String> {
        let mut users: Vec<String> = self.devices().into_iter().map(|(user, _)| user).collect();
        users.sort();
        users.dedup();
        users
    }

    /// Users who get messages; those that may misbehave stand several times, so that they get more.
    pub(crate) fn addressees(&self) -> Vec<String> {
        let mut users = self.users();
        let special: Vec<String> = users.iter().filter(|user| !user.starts_with("user-")).cloned().collect();
        let copies = users.len() / special.len().max(1) / 4;
        users.extend(std::iter::repeat_n(special, copies).flatten());
        users
    }

    /// How many clients are connected, and how many should be.
    pub(crate) fn connected(&self) -> (usize, usize) {
        let twins = if self.mood.borrow().twin { 0 } else { MISBEHAVING };
        (self.ground.connected.load(Ordering::Relaxed), self.specs.len() - twins - RIVALS * MISBEHAVING)
    }

    pub(crate) fn set(&self, change: impl FnOnce(&mut Mood)) {
        self.mood.send_modify(change);
    }

    /// Ends every client.
    pub(crate) async fn stop(&mut self) {
        self.set(|mood| mood.stop = true);
        while let Some(ended) = self.tasks.join_next().await {
            ended.expect("a client does not panic");
        }
    }

    /// Panics if a client has: a frame that it could not understand.
    pub(crate) fn check(&mut self) {
        while let Some(ended) = self.tasks.try_join_next() {
            ended.expect("a client does not panic");
        }
    }
}

/// Further clients, each of a user of its own, directly at the nodes: a proxy would cost three descriptors for each.
///
/// They have a thread of their own: what they cost must not slow the proxies down, which everybody else goes through.
#[derive(Debug)]
pub(crate) struct Storm {
    mood: watch::Sender<Mood>,
    connected: Arc<AtomicUsize>,
    thread: std::thread::JoinHandle<()>,
    pub(crate) size: usize,
}

impl Storm {
    /// Lets `size` clients connect at once.
    pub(crate) fn start(
        settings: &Settings,
        recorder: Arc<Recorder>,
        nodes: Vec<(String, SocketAddr)>,
        size: usize,
    ) -> Self {
        let (mood, receiver) = watch::channel(Mood::default());
        let connected = Arc::new(AtomicUsize::new(0));
        let ground = Ground { recorder, nodes: nodes.into(), mood: receiver, connected: connected.clone() };
        let (life, seed) = (settings.length * 3 + TOKEN_SLACK, settings.seed);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime needs nothing").block_on(async {
                let mut tasks = JoinSet::new();
                for number in 0..size as u64 {
                    let (user, device) = Self::device(number);
                    let spec = spec(&user, &device, Group::Storm, STORM_NUMBERS + number, seed, life);
                    tasks.spawn(live(spec, ground.clone()));
                }
                while let Some(ended) = tasks.join_next().await {
                    ended.expect("a client does not panic");
                }
            });
        });
        Self { mood, connected, thread, size }
    }

    fn device(number: u64) -> (String, String) {
        (format!("storm-{number}"), "phone".to_owned())
    }

    /// Devices of a storm of this size, as user and device.
    pub(crate) fn devices(size: usize) -> impl Iterator<Item = (String, String)> {
        (0..size as u64).map(Self::device)
    }

    pub(crate) fn connected(&self) -> usize {
        self.connected.load(Ordering::Relaxed)
    }

    /// Everybody loses the connection at once and comes back at once.
    pub(crate) fn again(&self) {
        self.mood.send_modify(|mood| mood.moves += 1);
    }

    pub(crate) async fn stop(self) {
        self.mood.send_modify(|mood| mood.stop = true);
        let joined = tokio::task::spawn_blocking(|| self.thread.join()).await;
        joined.expect("joining a thread does not panic").expect("a client of a storm does not panic");
    }
}

fn spec(user: &str, device: &str, group: Group, number: u64, seed: u64, life: Duration) -> Spec {
    let mut token = Token::of(user).expires_in(life).claim("topics", vec!["room.*"]);
    if group == Group::Rival {
        token = token.claim("sessions", 1);
    }
    let whims = if group == Group::Storm { Vec::new() } else { whims(user) };
    Spec { user: user.to_owned(), device: device.to_owned(), group, token: token.encode(), whims, number, seed }
}
