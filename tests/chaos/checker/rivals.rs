//! Users of whom one device may be connected: the newer login ends the older one, and nothing else does.

use std::collections::HashMap;

use super::bounds::{Bounds, RIVAL};

/// The close code of a session that another device replaced.
const REPLACED: u16 = 4010;

#[derive(Clone, Copy, Debug)]
struct Login {
    device: u32,
    begun_us: u64,
    generation: Option<u64>,
    closed_us: Option<u64>,
    /// When another device of the user certainly had a later session.
    outdone_us: Option<u64>,
}

/// What is wrong with the end of a login.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wrong {
    /// It was replaced, and nobody can have done it.
    ReplacedByNobody,
    /// It was there for so long although another one had replaced it.
    Outstayed { us: u64 },
}

/// All logins of such users.
#[derive(Debug, Default)]
pub(crate) struct Rivals {
    /// By connection: user, and where it stands among the user's.
    places: HashMap<u64, (u32, usize)>,
    logins: HashMap<u32, Vec<Login>>,
    /// When all data was lost: who was the later one is not known then.
    lost_us: Vec<u64>,
    pub(crate) replaced: u64,
}

impl Rivals {
    pub(crate) fn connect(&mut self, now_us: u64, connection: u64, (user, device): (u32, u32), group: &str) {
        if group == RIVAL {
            let logins = self.logins.entry(user).or_default();
            self.places.insert(connection, (user, logins.len()));
            logins.push(Login { device, begun_us: now_us, generation: None, closed_us: None, outdone_us: None });
        }
    }

    pub(crate) fn ready(&mut self, now_us: u64, connection: u64, generation: u64) {
        let Some((user, place)) = self.places.get(&connection) else { return };
        let Some(logins) = self.logins.get_mut(user) else { return };
        let device = logins[*place].device;
        logins[*place].generation = Some(generation);
        let mut latest = generation;
        for login in logins.iter_mut().filter(|login| login.device != device && login.closed_us.is_none()) {
            let Some(other) = login.generation else { continue };
            latest = latest.max(other);
            if other < generation {
                login.outdone_us.get_or_insert(now_us);
            }
        }
        if latest > generation {
            logins[*place].outdone_us = Some(now_us);
        }
    }

    pub(crate) fn everything_lost(&mut self, now_us: u64) {
        self.lost_us.push(now_us);
    }

    /// The end of a connection, by the server's close code if there was one.
    pub(crate) fn closed(&mut self, now_us: u64, connection: u64, code: Option<u16>, bounds: &Bounds) -> Option<Wrong> {
        let Some((user, place)) = self.places.get(&connection) else {
            return (code == Some(REPLACED)).then_some(Wrong::ReplacedByNobody);
        };
        let logins = self.logins.get_mut(user)?;
        logins[*place].closed_us = Some(now_us);
        let login = logins[*place];
        if code == Some(REPLACED) {
            self.replaced += 1;
            let unsure = self.lost_us.iter().any(|lost_us| *lost_us >= login.begun_us);
            if !unsure && !logins.iter().any(|other| other.may_have_replaced(&login, bounds.settle_us)) {
                return Some(Wrong::ReplacedByNobody);
            }
        }
        login.outstayed(now_us, bounds.outstay_us)
    }

    /// Those who are still there at the end.
    pub(crate) fn outstayed(&self, now_us: u64, outstay_us: u64) -> impl Iterator<Item = (u32, u32, Wrong)> {
        self.logins.iter().flat_map(move |(user, logins)| {
            let open = logins.iter().filter(|login| login.closed_us.is_none());
            open.filter_map(move |login| Some((*user, login.device, login.outstayed(now_us, outstay_us)?)))
        })
    }
}

impl Login {
    /// Whether this one can have attached after the other one, which has just ended.
    fn may_have_replaced(&self, other: &Self, settle_us: u64) -> bool {
        let was_there = |grace_us: u64| self.closed_us.is_none_or(|us| us.saturating_add(grace_us) > other.begun_us);
        self.device != other.device
            && match (self.generation, other.generation) {
                (Some(own), Some(replaced)) => own > replaced,
                (Some(_), None) => was_there(0),
                // Its attach may have been executed without an answer, also after its client had given up.
                (None, _) => was_there(settle_us),
            }
    }

    fn outstayed(&self, now_us: u64, outstay_us: u64) -> Option<Wrong> {
        let us = now_us - self.outdone_us?;
        (us > outstay_us).then_some(Wrong::Outstayed { us })
    }
}
