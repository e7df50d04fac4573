//! Planted bugs and removed remedies: a test shows for each that it is found.

/// One thing that a node or Redis does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// Sessions read before the subscription to wake-ups is confirmed.
    ReadBeforeSubscribe,
    /// A trim removes what one device has acknowledged.
    TrimByOneDevice,
    /// A trim takes no notice of a known device without a group.
    TrimWithoutGroup,
    /// Releases are not heard, and sweeps find nothing.
    DeafToReleases,
    /// Sweeps find nothing.
    NoSweep,
    /// A release is sent to whom the releasing node was superseded by, not to the owner then recorded.
    ReleaseToSuccessor,
    /// A known device whose group is missing begins at the end.
    KnownDeviceAtEnd,
    /// An ack is confirmed when it is sent, before `XACK`.
    ConfirmBeforeXack,
    /// An ack is confirmed whatever the generation recorded beside `XACK`.
    ConfirmForAnyGeneration,
    /// A new link does not make sessions re-read what lost hints may have said.
    ForgetfulLink,
    /// A read that was sent on a lost connection may be executed after the pending list was read again.
    OldConnectionLives,
    /// An attach of an older connection of the same client object is not refused.
    StaleAttachWins,
    /// What is heard of a take-over while an attach is in flight is forgotten.
    SupersededInAttach,
    /// An attach tells its own node, too, and a session closes for its own generation.
    OwnGenerationCloses,
    /// A repair makes a new generation.
    RepairRaises,
    /// A forget removes the device whatever its generation.
    ForgetAnyGeneration,
    /// Whoever restores the notification flags tells nobody.
    FlagsSilently,
    /// A release does not name the attach that it ends.
    ReleaseWithoutNonce,
    /// A wake-up is lost while a read is in flight.
    WakeLostInRead,
    /// A node does not compare the server with the one that it knew.
    EpochUnnoticed,
    /// A group that had to be made anew is not told.
    RepairSilently,
    /// A touch does not name the owner again that was struck out.
    TouchDoesNotClaim,
    /// A sweep does not see that the session was ended by somebody else.
    DismissalUnseen,
    /// A live session whose attach Redis has lost attaches like a new device.
    RolledBackIsNew,
    /// An ack of a message that the session does not know is executed though the message asks for receipts.
    AckWithoutReceipt,
}
