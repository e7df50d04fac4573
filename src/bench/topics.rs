//! `homing bench topics`: users who follow many topics each, and messages to topics by lot; and whether a crowd of
//! followers who are away makes a message dearer.

use std::sync::Arc;
use std::time::Duration;

use homing_protocol::topic::{Topic, cursor_score};

use super::BenchError;
use super::appends::{Appended, Appender, Load};
use super::calls::Calls;
use super::clock::{now_us, us};
use super::costs;
use super::crowd::{self, Crowd};
use super::deliver::{LATE, START_DELAY, memory_figures};
use super::follows::{EACH_MAX, Follows, Lots};
use super::latency::Latencies;
use super::options::{ClientsOptions, ClusterOptions, TopicsOptions};
use super::outcome::Outcome;
use super::progress::Progress;
use super::report::{Findings, Unit};
use super::slow::SlowLog;
use super::stage::{self, DRAIN_MAX, Stage, Usage};
use super::worker::orders::{Order, Report};
use super::worker::payload::Payloads;
use crate::store::{Key, KeySpace};

/// Topics a user follows unless the node is told otherwise.
const TOPICS_PER_USER: u32 = 200;
/// Keys of a kind whose memory is looked at.
const MEMORY_KEYS: u32 = 200;
/// Time between two looks whether cursors are written.
const CURSORS_PAUSE: Duration = Duration::from_millis(250);
/// Topics that are asked for at once how far their followers are.
const COUNTS_BATCH: usize = 500;

/// Runs it.
pub(crate) async fn run(options: &TopicsOptions) -> Result<Outcome, BenchError> {
    let (users, each, topics) = (options.users.get(), options.each.get(), options.topics);
    if each > topics.min(EACH_MAX) {
        return Err(BenchError::Usage(format!("--each is at most --topics, and at most {EACH_MAX}")));
    }
    let has_crowd = options.offline > 0;
    let clients = ClientsOptions::one_device_each(options.users, options.workers, options.connect_rate);
    let mut stage = Stage::open(&cluster(options), &clients, None).await?;
    let Some(redis) = stage.cluster.redis().cloned() else {
        return Err(BenchError::Usage("messages are appended by XADD: --redis is needed".to_owned()));
    };
    let slow = SlowLog::watch(&redis, stage.cluster.is_own()).await?;
    let keys = KeySpace::new(stage.cluster.prefix(), 0);
    let run = stage.crew.run()[..6].to_owned();
    let names = (0..topics + u32::from(has_crowd)).map(|number| Topic::parse(&format!("bench-{run}-{number}")));
    let names: Vec<Topic> = names.collect::<Result<_, _>>().map_err(BenchError::broken("a topic's name"))?;
    let names = Arc::new(names);
    let follows = Follows::draw(users, each, topics, has_crowd);
    let calls = Calls::new(&stage.cluster.targets()[0], stage.cluster.api_key()?)?;
    let following = follows.call(&calls, |user| stage.crew.user(user), |topic| names[topic as usize].to_string());
    let following = following.await?;
    let logins = Logins::count(&mut stage, options.connect_rate.get(), options.rest.0).await?;

    let mut appender = Appender {
        connection: redis.connection(),
        keys: keys.clone(),
        topics: names.clone(),
        followers: Arc::new(follows.followers.clone()),
        payloads: Payloads::new(stage.crew.run(), options.size),
        lots: Lots::new(),
        number: 0,
    };
    let flow = Flow { rate: options.rate, topics: (0, topics), time: options.time.0, warm_up: options.warm_up.0 };
    let phase = flow.run(&mut stage, &mut appender).await?;
    let mut failures = phase.failures(&appender).await?;

    let about = format!("Messages to {topics} topics, of which each of {users} connected users follows {each}");
    let mut findings = Findings::new("topics", about);
    stage.circumstances(&mut findings).await;
    let rate = Unit::PerSecond.show(options.rate);
    findings.circumstance("messages", format!("{rate} of {} bytes, by XADD, each to a topic by lot", options.size));
    findings.circumstance("time", format!("{} after {} of warm-up", options.time, options.warm_up));
    stage::percentiles(&mut findings, "Following, PUT of a user's topics, 16 calls at once", "following", &following);
    logins.figures(&mut findings, &stage, users);
    phase.figures(&mut findings, "");
    costs::busy(&mut findings, (&phase.before, &phase.after));
    memory_figures(&mut findings, &phase.after);
    stage::charts(&mut findings, stage.crew.timeline.seconds(), "Latency");
    stage::percentile_chart(&mut findings, &phase.latencies, "Latency");
    let sample = Sample { keys: &keys, topics: &names[..topics.min(MEMORY_KEYS) as usize], suffix: "" };
    sample.figures(&mut findings, &stage).await?;

    if has_crowd {
        // As many deliveries each second as before, all of one topic.
        let rate = options.rate * f64::from(each) / f64::from(topics);
        let flow = Flow { rate, topics: (topics, topics + 1), ..flow };
        let alone = flow.run(&mut stage, &mut appender).await?;
        failures.extend(alone.failures(&appender).await?);
        let user_prefix = format!("bench-{run}-");
        let topic = &names[topics as usize];
        let crowd = Crowd { redis: &redis, keys: keys.clone(), topic, user_prefix, count: options.offline };
        crowd.write().await?;
        slow.forget().await?;
        let among = flow.run(&mut stage, &mut appender).await?;
        failures.extend(among.failures(&appender).await?);
        alone.figures(&mut findings, "_alone");
        among.figures(&mut findings, "_crowd");
        if let Some(id) = among.appended.last.get(&topics) {
            crowd.calls(&calls, *id, &mut findings).await?;
        }
        slow.figures(&mut findings).await?;
        let sample = Sample { keys: &keys, topics: std::slice::from_ref(topic), suffix: "_crowd" };
        sample.figures(&mut findings, &stage).await?;
        let took_us = crowd.unlink().await?;
        let group = "The end of the topic with a crowd: UNLINK of its keys";
        findings.figure(group, "unlink", "until Redis answers", took_us as f64, Unit::Microseconds);
    } else {
        slow.figures(&mut findings).await?;
    }
    let total = stage.crew.total();
    for (key, name, value) in [
        ("disconnects", "disconnects", total.disconnects),
        ("retries", "connections that failed and were made again", total.retries),
    ] {
        findings.figure("Counts", key, name, value as f64, Unit::Count);
    }
    if total.disconnects > 0 {
        failures.push(format!("{} clients were disconnected", total.disconnects));
    }
    let troubles = stage::troubles(&total);
    if !troubles.is_empty() {
        findings.note(format!("Troubles:{troubles}"));
    }
    findings.note("Users, topics and who follows what are drawn by lot, the same in every run.");
    stage.stop().await;
    Ok(Outcome { findings, failure: (!failures.is_empty()).then(|| failures.join("\n")) })
}

/// Nodes of our own let users follow so many, and their janitor does not pass while it is measured. What is compared
/// must not hold a sweep of all sessions, once a minute, on one side only.
fn cluster(options: &TopicsOptions) -> ClusterOptions {
    let mut cluster = options.cluster.clone();
    // The topic with a crowd is one more.
    let limit = TOPICS_PER_USER.max(options.each.get() + 1);
    let sweep = if options.offline > 0 { "1h" } else { "1m" };
    let settings =
        [("--topics-per-user", limit.to_string()), ("--janitor-pause", "1d".to_owned()), ("--sweep", sweep.to_owned())];
    for (name, value) in settings {
        if !cluster.serve_args.iter().any(|arg| arg.starts_with(name)) {
            cluster.serve_args.push(format!("{name}={value}"));
        }
    }
    cluster
}

/// All users connected, each loading what it follows.
struct Logins {
    before: Usage,
    after: Usage,
    commands: Option<u64>,
}

impl Logins {
    async fn count(stage: &mut Stage, rate: u32, rest: Duration) -> Result<Self, BenchError> {
        let (before, commands) = (stage.usage().await, commands(stage).await);
        stage.connect(rate).await?;
        // With their early sweeps.
        stage.crew.during(rest, |_| {}).await?;
        let commands = commands.zip(self::commands(stage).await).map(|(before, after)| after - before);
        Ok(Self { before, after: stage.usage().await, commands })
    }

    fn figures(&self, findings: &mut Findings, stage: &Stage, users: u32) {
        let group = "Connecting, from the time it was due to ready";
        stage::percentiles(findings, group, "connecting", &stage.crew.connecting);
        let group = "A login, with all that the user follows and four sweeps";
        if let Some(commands) = self.commands {
            let each = commands as f64 / f64::from(users);
            findings.figure(group, "login_commands", "commands of Redis", each, Unit::Count);
        }
        costs::cpu_each(findings, (group, "_login"), (&self.before, &self.after), u64::from(users));
    }
}

/// Commands that Redis has executed, those inside of functions among them.
async fn commands(stage: &Stage) -> Option<u64> {
    stage.cluster.redis()?.info("stats", "total_commands_processed").await?.parse().ok()
}

/// Messages to topics whose followers are connected.
#[derive(Clone, Copy, Debug)]
struct Flow {
    /// Messages each second.
    rate: f64,
    /// To topics from the first of these to before the second.
    topics: (u32, u32),
    time: Duration,
    warm_up: Duration,
}

/// What was counted while messages flowed.
struct Phase {
    before: Usage,
    after: Usage,
    commands: Option<u64>,
    /// Deliveries of messages that were meant for the measured time.
    measured: u64,
    /// Deliveries, those of the warm-up among them, each counted once.
    received: u64,
    duplicates: u64,
    appended: Appended,
    latencies: Latencies,
    seconds: f64,
}

impl Flow {
    async fn run(self, stage: &mut Stage, appender: &mut Appender) -> Result<Phase, BenchError> {
        let start_us = now_us() + us(START_DELAY);
        let measured_from_us = start_us + us(self.warm_up);
        let until_us = measured_from_us + us(self.time);
        stage.crew.order_all(&Order::MeasureFrom { at_us: measured_from_us }).await?;
        let counts = stage.crew.total();
        let load = Load { start_us, until_us, rate: self.rate, topics: self.topics };
        let appending = tokio::spawn(appender.clone().run(load));
        let mut progress = Progress::new("delivering", until_us - start_us);
        let mut watch = move |total: &Report| progress.at(now_us().saturating_sub(start_us), total);
        let until = |at_us: u64| Duration::from_micros(at_us.saturating_sub(now_us()));
        stage.crew.during(until(measured_from_us), &mut watch).await?;
        stage.crew.begin_timeline();
        let (before, commands) = (stage.usage().await, commands(stage).await);
        stage.crew.during(until(until_us), &mut watch).await?;
        let (appender_after, appended) = appending.await.map_err(BenchError::broken("appending"))??;
        *appender = appender_after;
        let expected = counts.unique + appended.deliveries;
        stage.crew.until(DRAIN_MAX, &mut watch, |total| total.unique >= expected).await?;
        // Over that time, the load was more than the cluster could take, and the rest came late.
        let elapsed_us = now_us().saturating_sub(measured_from_us);
        let seconds = if elapsed_us > us(self.time + LATE) { elapsed_us } else { us(self.time) } as f64 / 1_000_000.0;
        let (after, commands_after) = (stage.usage().await, self::commands(stage).await);
        stage.cluster.check()?;
        let total = stage.crew.total();
        Ok(Phase {
            before,
            after,
            commands: commands.zip(commands_after).map(|(before, after)| after - before),
            measured: total.measured - counts.measured,
            received: total.unique - counts.unique,
            duplicates: total.duplicates - counts.duplicates,
            appended,
            latencies: stage.crew.latencies.clone(),
            seconds,
        })
    }
}

impl Phase {
    /// What should not have been: messages that did not arrive, or whose followers have no cursor behind them.
    async fn failures(&self, appender: &Appender) -> Result<Vec<String>, BenchError> {
        let mut failures = Vec::new();
        let lost = self.lost();
        if lost > 0 {
            failures
                .push(format!("{lost} of {} deliveries did not happen within {DRAIN_MAX:?}", self.appended.deliveries));
        }
        let deadline = tokio::time::Instant::now() + DRAIN_MAX;
        loop {
            tokio::time::sleep(CURSORS_PAUSE).await;
            let behind = self.behind(appender).await?;
            if behind == 0 {
                break;
            }
            if lost > 0 || tokio::time::Instant::now() >= deadline {
                failures.push(format!("{behind} cursors in Redis are not behind the last message of their topic"));
                break;
            }
        }
        Ok(failures)
    }

    /// Followers' cursors that do not stand behind the last message of their topic.
    async fn behind(&self, appender: &Appender) -> Result<u64, BenchError> {
        let last: Vec<_> = self.appended.last.iter().collect();
        let mut behind = 0;
        for batch in last.chunks(COUNTS_BATCH) {
            let mut pipeline = redis::pipe();
            for (topic, id) in batch {
                let cursors = appender.keys.name(Key::Cursors(&appender.topics[**topic as usize]));
                pipeline.cmd("ZCOUNT").arg(cursors).arg(cursor_score(**id)).arg("+inf");
            }
            let counts: Vec<u64> = pipeline
                .query_async(&mut appender.connection.clone())
                .await
                .map_err(BenchError::unreachable("Redis"))?;
            let followers = batch.iter().map(|(topic, _)| u64::from(appender.followers[**topic as usize]));
            behind += followers.zip(counts).map(|(followers, done)| followers.saturating_sub(done)).sum::<u64>();
        }
        Ok(behind)
    }

    fn lost(&self) -> u64 {
        self.appended.deliveries.saturating_sub(self.received)
    }

    /// `suffix` ends the keys: of the phases with one topic only, `_alone` and `_crowd`.
    fn figures(&self, findings: &mut Findings, suffix: &str) {
        let [throughput, latency, cpu, counts] = match suffix {
            "_alone" => [
                "One topic of all connected users: throughput",
                "One topic of all connected users: latency",
                "One topic of all connected users: CPU for each delivery",
                "One topic of all connected users: counts",
            ],
            "_crowd" => [
                "The same topic with a crowd that is away: throughput",
                "The same topic with a crowd that is away: latency",
                "The same topic with a crowd that is away: CPU for each delivery",
                "The same topic with a crowd that is away: counts",
            ],
            _ => [
                "Throughput",
                "Latency, from the intended time to the device",
                "CPU for each message that a follower received and acknowledged",
                "Counts, with the warm-up",
            ],
        };
        let received = self.measured as f64 / self.seconds;
        findings.figure(throughput, &format!("received_rate{suffix}"), "received", received, Unit::PerSecond);
        stage::percentiles(findings, latency, &format!("latency{suffix}"), &self.latencies);
        costs::cpu_each(findings, (cpu, suffix), (&self.before, &self.after), self.measured);
        if let Some(commands) = self.commands {
            let each = commands as f64 / self.measured.max(1) as f64;
            findings.figure(cpu, &format!("commands{suffix}"), "commands of Redis", each, Unit::Ratio);
        }
        for (key, name, value) in [
            ("messages", "messages appended", self.appended.messages),
            ("received", "received, each follower counts", self.received),
            ("lost", "lost", self.lost()),
            ("duplicates", "received twice", self.duplicates),
        ] {
            findings.figure(counts, &format!("{key}{suffix}"), name, value as f64, Unit::Count);
        }
    }
}

/// Keys whose memory stands for that of all.
struct Sample<'a> {
    keys: &'a KeySpace,
    topics: &'a [Topic],
    suffix: &'a str,
}

impl Sample<'_> {
    async fn figures(&self, findings: &mut Findings, stage: &Stage) -> Result<(), BenchError> {
        let Some(redis) = stage.cluster.redis() else { return Ok(()) };
        let users = (0..stage.crew.users().min(MEMORY_KEYS)).map(|number| stage.crew.user(number));
        let users: Vec<_> = users.filter_map(|user| homing_protocol::name::Name::parse(&user).ok()).collect();
        let of_topics = |key: &dyn Fn(&Topic) -> String| self.topics.iter().map(key).collect::<Vec<_>>();
        let kinds = [
            ("cursor", "a cursor", "ZCARD", of_topics(&|topic| self.keys.name(Key::Cursors(topic)))),
            (
                "follower",
                "an entry in a list of followers",
                "SCARD",
                of_topics(&|topic| self.keys.name(Key::Followers(topic))),
            ),
            (
                "follow",
                "an entry of what a user follows",
                "HLEN",
                users.iter().map(|user| self.keys.name(Key::Topics(user))).collect(),
            ),
        ];
        let group = match self.suffix {
            "" => "Memory in Redis, of each member, by MEMORY USAGE",
            _ => "Memory in Redis, of each member, in the topic with a crowd",
        };
        for (key, name, count, keys) in kinds {
            let (bytes, members) = crowd::memory(&mut redis.connection(), &keys, count).await?;
            if members > 0 {
                let each = bytes as f64 / members as f64;
                findings.figure(group, &format!("memory_{key}{}", self.suffix), name, each, Unit::Bytes);
            }
        }
        Ok(())
    }
}
