//! The Redis functions of `migrations/`: their names, their source, and how to call them.

use redis::Cmd;

/// The library's source, joined from the files of `migrations/0001_functions` in the order of their names.
pub const LIBRARY: &str = concat!(
    include_str!("../../migrations/0001_functions/00_prelude.lua"),
    include_str!("../../migrations/0001_functions/10_attach.lua"),
    include_str!("../../migrations/0001_functions/11_release.lua"),
    include_str!("../../migrations/0001_functions/12_trim.lua"),
    include_str!("../../migrations/0001_functions/13_remove.lua"),
    include_str!("../../migrations/0001_functions/14_publish_once.lua"),
    include_str!("../../migrations/0001_functions/15_set_aside.lua"),
    include_str!("../../migrations/0001_functions/16_tend.lua"),
    include_str!("../../migrations/0001_functions/17_nodes.lua"),
    include_str!("../../migrations/0001_functions/18_lock.lua"),
    include_str!("../../migrations/0001_functions/19_receipts.lua"),
    include_str!("../../migrations/0001_functions/20_disconnect.lua"),
    include_str!("../../migrations/0001_functions/21_look.lua"),
    include_str!("../../migrations/0001_functions/22_topics.lua"),
);

/// The library's name in Redis.
pub const LIBRARY_NAME: &str = "homing_1";

/// An atomic operation. Keys, arguments and reply of each stand at the head of its file in `migrations/`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Function {
    /// Makes a session the owner of its device.
    Attach,
    /// Says that a node hands out nothing more for a generation.
    Release,
    /// Removes what every device has acknowledged.
    Trim,
    /// Forgets a device.
    Remove,
    /// Forgets a user.
    Purge,
    /// Appends a message unless its key was seen.
    PublishOnce,
    /// Takes undeliverable messages from a device's pending list.
    SetAside,
    /// Closes a gap that the client has taken note of.
    AckGap,
    /// Refreshes a live device's last-seen time.
    Touch,
    /// The janitor's visit to one user.
    Tend,
    /// A node's heartbeat.
    Heartbeat,
    /// Compares the server with the primary epoch.
    Recover,
    /// Changes which topics a user follows.
    Follow,
    /// The same for topics that a user follows no more.
    Unfollow,
    /// Writes where devices stand in a topic.
    WriteCursors,
    /// Forgets where devices stand in a topic that their user follows no more.
    ForgetCursors,
    /// Takes cursors of an older epoch back.
    RewindCursors,
    /// The janitor's visit to one topic.
    TendTopic,
    /// Appends a message that asks for receipts, unless its key was seen.
    PublishAsking,
    /// Tells what became of messages.
    Announce,
    /// Records what became of messages, and tells who waits for it.
    Record,
    /// Notes who waits for what becomes of a message.
    Await,
    /// Acknowledges messages of which a session does not know whether they ask for receipts.
    Ack,
    /// Takes or renews a lock.
    Lock,
    /// Gives a lock back.
    Unlock,
    /// Ends sessions of a user.
    Disconnect,
    /// Asks whether an announced device is gone.
    Look,
}

impl Function {
    /// The function's name in Redis.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Attach => "homing_1_attach",
            Self::Release => "homing_1_release",
            Self::Trim => "homing_1_trim",
            Self::Remove => "homing_1_remove",
            Self::Purge => "homing_1_purge",
            Self::PublishOnce => "homing_1_publish_once",
            Self::SetAside => "homing_1_set_aside",
            Self::AckGap => "homing_1_ack_gap",
            Self::Touch => "homing_1_touch",
            Self::Tend => "homing_1_tend",
            Self::Heartbeat => "homing_1_heartbeat",
            Self::Recover => "homing_1_recover",
            Self::Follow => "homing_1_follow",
            Self::Unfollow => "homing_1_unfollow",
            Self::WriteCursors => "homing_1_write_cursors",
            Self::ForgetCursors => "homing_1_forget_cursors",
            Self::RewindCursors => "homing_1_rewind_cursors",
            Self::TendTopic => "homing_1_tend_topic",
            Self::PublishAsking => "homing_1_publish_asking",
            Self::Announce => "homing_1_announce",
            Self::Record => "homing_1_record",
            Self::Await => "homing_1_await",
            Self::Ack => "homing_1_ack",
            Self::Lock => "homing_1_lock",
            Self::Unlock => "homing_1_unlock",
            Self::Disconnect => "homing_1_disconnect",
            Self::Look => "homing_1_look",
        }
    }

    /// An `FCALL` with its keys; the arguments follow by [`Cmd::arg`].
    #[must_use]
    pub fn call(self, keys: &[&str]) -> Cmd {
        let mut command = redis::cmd("FCALL");
        command.arg(self.name()).arg(keys.len()).arg(keys);
        command
    }
}
