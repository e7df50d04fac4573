//! Who follows which topics, drawn by lot, and the calls that make it so.

use std::collections::HashSet;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::json;

use super::BenchError;
use super::calls::Calls;
use super::latency::Latencies;
use super::progress::Progress;
use super::worker::orders::Report;

/// Most topics that one request may name.
pub(crate) const EACH_MAX: u32 = 1_000;
/// Calls at once.
pub(crate) const CALLS_AT_ONCE: usize = 16;
/// Whoever runs it again draws the same.
const SEED: u64 = 0x0074_6f70_6963_7321;

/// Numbers by lot (splitmix64, <https://prng.di.unimi.it/splitmix64.c>), the same in every run.
#[derive(Clone, Debug)]
pub(crate) struct Lots(u64);

impl Lots {
    pub(crate) fn new() -> Self {
        Self(SEED)
    }

    /// From 0 up to `end`, without it.
    pub(crate) fn below(&mut self, end: u32) -> u32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut value = self.0;
        value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((u64::from((value ^ (value >> 31)) as u32) * u64::from(end)) >> 32) as u32
    }

    /// `count` different numbers below `end` (Floyd's algorithm).
    fn distinct(&mut self, count: u32, end: u32) -> Vec<u32> {
        let mut drawn = HashSet::new();
        for last in end.saturating_sub(count)..end {
            let number = self.below(last + 1);
            drawn.insert(if drawn.contains(&number) { last } else { number });
        }
        let mut drawn: Vec<u32> = drawn.into_iter().collect();
        drawn.sort_unstable();
        drawn
    }
}

/// Numbers of topics by user, and of followers by topic.
#[derive(Clone, Debug)]
pub(crate) struct Follows {
    of_user: Vec<Vec<u32>>,
    pub(crate) followers: Vec<u32>,
}

impl Follows {
    /// Each of `users` follows `each` of `topics`; and all of them one more if there is a crowd.
    pub(crate) fn draw(users: u32, each: u32, topics: u32, crowd: bool) -> Self {
        let mut lots = Lots::new();
        let mut followers = vec![0; topics as usize + usize::from(crowd)];
        let mut of_user: Vec<Vec<u32>> = (0..users).map(|_| lots.distinct(each, topics)).collect();
        for followed in &mut of_user {
            followed.extend(crowd.then_some(topics));
            followed.iter().for_each(|topic| followers[*topic as usize] += 1);
        }
        Self { of_user, followers }
    }

    /// Makes users follow by `PUT /v1/users/{user}/topics`; how long each call took.
    pub(crate) async fn call(
        &self,
        calls: &Calls,
        user: impl Fn(u32) -> String,
        topic: impl Fn(u32) -> String,
    ) -> Result<Latencies, BenchError> {
        let mut progress = Progress::new("following", self.of_user.len() as u64);
        let follow = |(number, followed): (usize, &Vec<u32>)| {
            let path = format!("/v1/users/{}/topics", user(number as u32));
            let topics: Vec<String> = followed.iter().map(|number| topic(*number)).collect();
            async move {
                let mut took = Latencies::default();
                calls.call(reqwest::Method::PUT, &path, Some(&json!({ "topics": topics })), &mut took).await?;
                Ok::<_, BenchError>(took.take())
            }
        };
        let mut answers = stream::iter(self.of_user.iter().enumerate()).map(follow).buffer_unordered(CALLS_AT_ONCE);
        let (mut all, mut done) = (Latencies::default(), 0);
        while let Some(took) = answers.try_next().await? {
            all.add(&took);
            done += 1;
            progress.at(done, &Report::default());
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_follows_as_many_different_topics_as_asked_for_and_no_topic_is_everybodys() {
        let follows = Follows::draw(1_000, 100, 10_000, false);
        for followed in &follows.of_user {
            assert_eq!(followed.iter().collect::<HashSet<_>>().len(), 100);
            assert!(followed.iter().all(|topic| *topic < 10_000));
        }
        assert_eq!(follows.followers.iter().sum::<u32>(), 100_000);
        // Ten on the average; Poisson.
        assert!(follows.followers.iter().all(|count| *count < 40), "{:?}", follows.followers.iter().max());
        assert!(follows.followers.iter().filter(|count| **count == 0).count() < 20);
        let all = Follows::draw(3, 5, 5, true);
        assert_eq!((all.followers, all.of_user[0].as_slice()), (vec![3; 6], [0, 1, 2, 3, 4, 5].as_slice()));
    }
}
