//! One node's network, towards Redis or towards its clients.

use std::time::Duration;

use super::super::harness::proxy::Weather;
use super::super::plan::{Kind, Period};
use super::Nemesis;

/// Much for a pipeline, little for a human.
const DELAY: Duration = Duration::from_millis(150);
/// Bytes a second of each connection to Redis: about what a node needs, so that it falls behind.
const NARROW_BACK: u32 = 30_000;
/// Of each client connection: some messages a second.
const NARROW_FRONT: u32 = 2_000;

impl Nemesis {
    pub(super) async fn hit_network(&mut self, kind: Kind, period: Period) {
        let index = period.pick % self.cluster.members.len();
        self.begin(kind, &self.cluster.members[index].name.clone());
        let member = &self.cluster.members[index];
        match kind {
            Kind::RedisReset => member.back.reset_all(),
            Kind::RedisHalfOpen => member.back.strand_all(),
            Kind::ClientsReset => member.front.reset_all(),
            Kind::ClientsHalfOpen => member.front.strand_all(),
            Kind::RedisSilent => member.back.set(Weather::Silent),
            Kind::RedisRefused => member.back.set(Weather::Refusing),
            Kind::RedisLate => member.back.set(Weather::Late(DELAY)),
            Kind::RedisThrottled => member.back.set(Weather::Narrow(NARROW_BACK)),
            Kind::RedisAnswersLost => member.back.set(Weather::AnswersLost),
            Kind::ClientsSilent => member.front.set(Weather::Silent),
            Kind::ClientsRefused => member.front.set(Weather::Refusing),
            Kind::ClientsLate => member.front.set(Weather::Late(DELAY)),
            Kind::ClientsThrottled => member.front.set(Weather::Narrow(NARROW_FRONT)),
            Kind::ClientsAnswersLost => member.front.set(Weather::AnswersLost),
            other => unreachable!("{other:?} is no fault of the network"),
        }
        tokio::time::sleep(period.length).await;
        let member = &self.cluster.members[index];
        member.back.set(Weather::Fair);
        member.front.set(Weather::Fair);
        self.healed();
    }
}
