//! When a producer's messages are due, and for whom.

use super::orders::{Pace, Publishing};

/// One of the producers of a worker: every `lanes`-th of its users, in turn.
#[derive(Clone, Debug)]
pub(crate) struct Schedule {
    start_us: u64,
    until_us: u64,
    /// `None` for as fast as possible.
    interval_us: Option<f64>,
    in_flight_max: u64,
    gather_us: u64,
    count_max: u64,
    /// Messages so far.
    count: u64,
    user: u32,
    lane: u32,
    lanes: u32,
    users: u32,
}

impl Schedule {
    /// The schedule of number `lane` of `lanes`.
    pub(crate) fn new(order: &Publishing, lane: u32, lanes: u32, users: u32) -> Self {
        let own_users = users.saturating_sub(lane).div_ceil(lanes);
        let (interval_us, in_flight_max) = match order.pace {
            Pace::Rate(rate) => (Some(1_000_000.0 / rate * f64::from(users) / f64::from(own_users)), u64::MAX),
            Pace::InFlight(max) => (None, max.max(1)),
        };
        // Lanes take turns, so that their messages do not come all at once.
        let offset = interval_us.map_or(0.0, |interval| interval * f64::from(lane) / f64::from(lanes));
        let count_max = order.count_per_user.map_or(u64::MAX, |count| u64::from(count) * u64::from(own_users));
        Self {
            start_us: order.start_us + offset as u64,
            until_us: order.until_us,
            interval_us,
            in_flight_max,
            gather_us: order.gather_us,
            count_max,
            count: 0,
            user: lane,
            lane,
            lanes,
            users,
        }
    }

    /// When the next message is due; `None` if there is none. Now, if as fast as possible.
    pub(crate) fn due_us(&self, now_us: u64) -> Option<u64> {
        let due_us = match self.interval_us {
            Some(interval) => self.start_us + (self.count as f64 * interval) as u64,
            None => now_us.max(self.start_us),
        };
        (due_us < self.until_us && self.count < self.count_max).then_some(due_us)
    }

    /// When a message that is due then is written.
    pub(crate) fn write_us(&self, due_us: u64) -> u64 {
        due_us.checked_next_multiple_of(self.gather_us).unwrap_or(due_us)
    }

    /// The user of the next message, which is taken.
    pub(crate) fn take(&mut self) -> u32 {
        let user = self.user;
        self.count += 1;
        self.user += self.lanes;
        if self.user >= self.users {
            self.user = self.lane;
        }
        user
    }

    /// Whether messages wait for others to arrive, and how many may be on their way.
    pub(crate) fn in_flight_max(&self) -> Option<u64> {
        self.interval_us.is_none().then_some(self.in_flight_max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(pace: Pace, count_per_user: Option<u32>) -> Publishing {
        Publishing { start_us: 1_000_000, measured_from_us: 0, until_us: 3_000_000, pace, gather_us: 0, count_per_user }
    }

    fn all(mut schedule: Schedule) -> Vec<(u64, u32)> {
        std::iter::from_fn(|| schedule.due_us(0).map(|due_us| (due_us, schedule.take()))).collect()
    }

    fn counts(due: &[(u64, u32)], users: u32) -> Vec<usize> {
        (0..users).map(|user| due.iter().filter(|(_, due)| *due == user).count()).collect()
    }

    #[test]
    fn every_user_gets_the_same_rate_however_the_lanes_come_out() {
        let lanes = (0..3).map(|lane| all(Schedule::new(&order(Pace::Rate(35.0), None), lane, 3, 7)));
        let due: Vec<(u64, u32)> = lanes.flatten().collect();
        assert!((69..=71).contains(&due.len()), "{}", due.len());
        assert!(counts(&due, 7).iter().all(|count| (9..=11).contains(count)), "{due:?}");
        let lane: Vec<u64> =
            all(Schedule::new(&order(Pace::Rate(10.0), None), 0, 1, 3)).iter().map(|due| due.0).collect();
        assert!(lane.windows(2).all(|pair| (99_999..=100_001).contains(&(pair[1] - pair[0]))), "{lane:?}");
    }

    #[test]
    fn a_message_is_written_when_its_time_of_gathering_ends_and_due_when_it_was_meant() {
        let gathering = Publishing { gather_us: 2_000, ..order(Pace::Rate(700.0), None) };
        let schedule = Schedule::new(&gathering, 0, 1, 1);
        assert_eq!(
            [999_999, 1_000_000, 1_000_001].map(|due| schedule.write_us(due)),
            [1_000_000, 1_000_000, 1_002_000]
        );
        assert_eq!(Schedule::new(&order(Pace::Rate(700.0), None), 0, 1, 1).write_us(1_001), 1_001);
        assert_eq!(all(schedule)[1].0, 1_001_428);
    }

    #[test]
    fn every_user_gets_its_count() {
        let lanes = (0..3).map(|lane| all(Schedule::new(&order(Pace::InFlight(9), Some(4)), lane, 3, 7)));
        assert_eq!(counts(&lanes.flatten().collect::<Vec<_>>(), 7), [4; 7]);
    }
}
