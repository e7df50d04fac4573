//! States in which Redis refuses: each gives producers the documented answer, keeps what can be kept going, shows at
//! `/readyz`, and ends by itself.
//!
//! Owns the states ([`State`]) and what is claimed of each. It must not know how a node notices. Invariant: a test
//! enters the state for real and proves it by a refused `XADD` of its own before it claims anything.

mod acks;
mod killed;
mod producers;
mod readiness;
mod scene;
mod sessions;

use scene::{Scene, State};

/// Makes one test of each state for each claim, so that a failure names both.
macro_rules! for_each_state {
    ($($claim:path as $name:ident;)+) => {$(
        mod $name {
            use super::State;

            #[tokio::test]
            async fn memory_is_full() {
                $claim(State::MemoryFull).await;
            }

            #[tokio::test]
            async fn a_snapshot_failed() {
                $claim(State::SnapshotFailed).await;
            }

            #[tokio::test]
            async fn the_log_cannot_grow() {
                $claim(State::LogFull).await;
            }

            #[tokio::test]
            async fn it_is_a_replica() {
                $claim(State::ReadOnly).await;
            }

            #[tokio::test]
            async fn replicas_are_missing() {
                $claim(State::NoReplicas).await;
            }

            #[tokio::test]
            async fn it_loads_its_data() {
                $claim(State::Loading).await;
            }
        }
    )+};
}

for_each_state! {
    super::producers::are_told_to_try_again as producers_are_told_to_try_again_when;
    super::acks::are_confirmed_only_when_executed as acks_are_confirmed_only_when_executed_though;
    super::readiness::turns_red_and_green_again as readyz_turns_red_and_green_again_when;
}
