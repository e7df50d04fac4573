//! A run from its first process to its verdict.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use rustix::process::{Resource, getrlimit, setrlimit};

use super::client::Mood;
use super::cluster::Cluster;
use super::followers::Followers;
use super::history::Event;
use super::nemesis::Nemesis;
use super::owed::{Behind, Owed};
use super::population::Population;
use super::producers::Producers;
use super::receipts::Reader;
use super::recorder::Recorder;
use super::report;
use super::resources::{Canary, Sampler};
use super::settings::Settings;
use super::{followers, owed, plan};

/// Traffic before the baseline, so that buffers and caches have their usual size.
const WARM_UP: Duration = Duration::from_secs(3);
const WARM_UP_LONG: Duration = Duration::from_secs(20);
/// Until nothing is owed any more, after everything was healed: the sweep every 60 s, and what it finds.
const DRAIN_MAX: Duration = Duration::from_secs(150);
const POLL: Duration = Duration::from_millis(200);
/// How long producers go on when nobody changes what they follow any more.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Runs a plan and panics if anything is wrong with what came of it.
pub(crate) async fn run(settings: Settings) {
    raise_descriptor_limit();
    let folder = settings.folder.join(settings.seed.to_string());
    std::fs::create_dir_all(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let recorder = Arc::new(Recorder::create(folder.join("history.jsonl")));
    println!("chaos with seed {}: {settings:?}", settings.seed);

    let cluster = Cluster::start(&settings).await;
    let seed = settings.seed;
    let nodes = u32::try_from(cluster.members.len()).expect("a handful of nodes");
    recorder.record(Event::Begin { seed, nodes, fsync: settings.fsync.to_owned() });
    let mut population = Population::new(&settings, recorder.clone(), cluster.fronts());
    population.start();
    let sampler = Sampler::new(recorder.clone(), cluster.watched());
    let (redis, users) = (cluster.redis.client(), population.addressees());
    let fronts: Vec<SocketAddr> = cluster.fronts().into_iter().map(|(_, address)| address).collect();
    let names = population.users();
    let followers = Followers::begin(recorder.clone(), fronts.clone(), &names).await;
    let mut nemesis = Nemesis::new(cluster, population, followers, recorder.clone(), settings.clone());
    nemesis.recover("the start").await;
    // Devices are known before the first message: only those are owed it.
    let receipts = Reader::start(recorder.clone(), redis.clone());
    let producers = Producers::start(&settings, recorder.clone(), fronts, redis, users);
    nemesis.followers.start_changing(&names, settings.seed);
    tokio::time::sleep(if settings.short { WARM_UP } else { WARM_UP_LONG }).await;
    sampler.series().await;
    recorder.record(Event::Baseline);

    let sampling = sampler.start();
    let canary = Canary::start();
    let start = Instant::now();
    for period in plan::draw(settings.seed, settings.length, settings.short, |kind| nemesis.can(kind)) {
        nemesis.run(period).await;
    }
    println!("the plan took {:.0} s; draining", start.elapsed().as_secs_f64());
    sampling.abort();
    let lag = canary.finish();
    nemesis.population.set(|mood| *mood = Mood { moves: mood.moves, settled: true, ..Mood::default() });
    nemesis.followers.stop().await;
    // What is published from here on is owed to whoever follows now: nobody leaves any more.
    tokio::time::sleep(LAST_WORDS).await;
    producers.stop().await;
    drain(&mut nemesis).await;
    recorder.record(Event::Drained);
    sampler.series().await;
    let mut redis = nemesis.cluster.redis.connection().await;
    record_what_is_left(&recorder, &mut redis, &nemesis.devices()).await;
    receipts.finish().await;
    nemesis.population.stop().await;
    recorder.record(Event::End);
    recorder.flush();
    nemesis.cluster.save_logs(&folder);
    let failures = std::mem::take(&mut nemesis.failures);
    drop(nemesis);

    report::judge(&settings, &folder, recorder.path(), lag, &failures);
}

async fn record_what_is_left(recorder: &Recorder, redis: &mut MultiplexedConnection, devices: &[(String, String)]) {
    for (topic, ids) in owed::logs(redis, &followers::topics()).await {
        recorder.record(Event::Log { topic, ids });
    }
    for Owed { user, device, ids, topics } in owed::everything(redis, devices).await {
        for Behind { topic, after, .. } in topics {
            recorder.record(Event::Behind { user: user.clone(), device: device.clone(), topic, after });
        }
        if !ids.is_empty() {
            recorder.record(Event::Left { user, device, ids });
        }
    }
}

/// Waits until nothing is owed to any device.
async fn drain(nemesis: &mut Nemesis) {
    nemesis.recover("everything").await;
    let start = Instant::now();
    let devices = nemesis.population.devices();
    let mut redis = nemesis.cluster.redis.connection().await;
    loop {
        nemesis.population.check();
        let owed = owed::everything(&mut redis, &devices).await;
        if owed.is_empty() {
            println!("drained in {:.1} s", start.elapsed().as_secs_f64());
            return;
        }
        if start.elapsed() > DRAIN_MAX {
            let of_topics = |owed: &Owed| owed.topics.iter().map(|behind| behind.ids.len()).sum::<usize>();
            let left: usize = owed.iter().map(|owed| owed.ids.len() + of_topics(owed)).sum();
            let state = format!("not drained in {DRAIN_MAX:?}: {left} messages of {} devices", owed.len());
            println!("{state}; the first: {:?}", owed[0]);
            nemesis.failures.push(state);
            return;
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Open files that this process may have.
pub(crate) fn descriptor_limit() -> usize {
    getrlimit(Resource::Nofile).current.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX))
}

/// As many as the hard limit allows; the nodes do the same.
fn raise_descriptor_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // Refused only where it changes nothing: the soft limit stays what it was.
    let _ = setrlimit(Resource::Nofile, limit);
}
