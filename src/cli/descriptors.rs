//! The limit of open descriptors.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Sockets are descriptors; the soft limit is often 1,024 where the hard one allows a million. Child processes inherit it.
pub(super) fn raise_limit() {
    let limit = getrlimit(Resource::Nofile);
    // If this fails, a node serves fewer sessions, as --sessions-max then says, and a measurement says what it lacks.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}
