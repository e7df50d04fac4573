//! Nodes that are killed, stopped, or restarted one after the other.

use std::time::Duration;

use super::super::plan::{Kind, Period};
use super::Nemesis;

/// `drain_grace` of the nodes is 8 s.
const EXIT_WITHIN: Duration = Duration::from_secs(20);

impl Nemesis {
    pub(super) async fn hit_node(&mut self, kind: Kind, period: Period) {
        let index = period.pick % self.cluster.members.len();
        let name = self.cluster.members[index].name.clone();
        match kind {
            Kind::NodeKilled => {
                self.begin(kind, &name);
                self.cluster.members[index].node.kill9();
                tokio::time::sleep(period.length).await;
                self.cluster.members[index].launch_again();
                self.cluster.watch();
            }
            Kind::NodeStopped => {
                self.begin(kind, &name);
                self.cluster.members[index].node.sigstop();
                tokio::time::sleep(period.length).await;
                self.cluster.members[index].node.sigcont();
            }
            _ => {
                self.begin(kind, "all nodes");
                for index in 0..self.cluster.members.len() {
                    self.restart_politely(index).await;
                }
            }
        }
        self.healed();
    }

    async fn restart_politely(&mut self, index: usize) {
        let member = &mut self.cluster.members[index];
        member.node.sigterm();
        let start = tokio::time::Instant::now();
        while member.node.exited().is_none() {
            if start.elapsed() > EXIT_WITHIN {
                self.failures.push(format!("{} did not exit within {EXIT_WITHIN:?}", member.name));
                member.node.kill9();
                break;
            }
            tokio::time::sleep(super::POLL).await;
        }
        member.launch_again();
        self.cluster.watch();
        while self.cluster.look_after().await == Ok(false) && start.elapsed() < super::RECOVERY_MAX {
            tokio::time::sleep(super::POLL).await;
        }
    }
}
