//! What processes used between two moments, as figures.

use std::time::Duration;

use super::report::{Findings, Unit};
use super::stage::Usage;

/// CPU of nodes, Redis and clients for each of so many deliveries; `suffix` ends the keys. Answers that of nodes and Redis
/// together, in microseconds, if it can be seen.
pub(crate) fn cpu_each(
    findings: &mut Findings,
    (group, suffix): (&'static str, &str),
    (before, after): (&Usage, &Usage),
    deliveries: u64,
) -> Option<f64> {
    let each = |before: Option<Duration>, after: Option<Duration>| {
        Some(after?.saturating_sub(before?).as_secs_f64() * 1_000_000.0 / deliveries.max(1) as f64)
    };
    let parts = [
        ("cpu_nodes", "nodes", each(before.nodes_cpu, after.nodes_cpu)),
        ("cpu_redis", "Redis", each(before.redis_cpu, after.redis_cpu)),
        ("cpu_workers", "this load client", each(Some(before.workers_cpu), Some(after.workers_cpu))),
    ];
    for (key, name, value) in parts {
        if let Some(value) = value {
            findings.figure(group, &format!("{key}{suffix}"), name, value, Unit::Microseconds);
        }
    }
    Some(parts[0].2? + parts[1].2?)
}

/// How busy these processes were, of one core, and how much of the machine went to its neighbours.
pub(crate) fn busy(findings: &mut Findings, (before, after): (&Usage, &Usage)) {
    let seconds = after.at_us.saturating_sub(before.at_us) as f64 / 1_000_000.0;
    let parts = [
        ("load_nodes", "nodes", before.nodes_cpu, after.nodes_cpu),
        ("load_redis", "Redis", before.redis_cpu, after.redis_cpu),
        ("load_workers", "this load client", Some(before.workers_cpu), Some(after.workers_cpu)),
        ("load_stolen", "taken by the host of this machine", before.stolen_cpu, after.stolen_cpu),
    ];
    for (key, name, before, after) in parts {
        if let (Some(before), Some(after)) = (before, after)
            && seconds > 0.0
        {
            let percent = after.saturating_sub(before).as_secs_f64() / seconds * 100.0;
            findings.figure("CPU, of one core", key, name, percent, Unit::Percent);
        }
    }
}
