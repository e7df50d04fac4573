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
    /// An older node writes cursors of topics without `GT`.
    CursorWithoutGt,
    /// A cursor that its score cannot tell exactly is rounded up.
    CursorRoundedUp,
    /// A cursor goes to the newest ack, whatever lies before it.
    CursorPassesUnacked,
    /// A device without a cursor begins at the end of the log.
    CursorBeginsAtEnd,
    /// Acks in topics are confirmed when the cursor is sent, before it is written.
    ConfirmBeforeCursor,
    /// Acks in topics are confirmed whatever the generation recorded after the cursor.
    ConfirmCursorForAnyGeneration,
    /// A session's read of a topic passes what the node had seen when it came back, not when it was sent.
    ReadPassesWhatCameBack,
    /// What a node has read of a topic is handed out whatever a session was given before.
    BatchWithoutPlace,
    /// A change of what a user follows is told to nobody.
    FollowSilently,
    /// After an unfollow, cursors are forgotten also if they were written since the topic was followed again.
    CursorsForgottenLate,
    /// What retention took is forgotten with a log that is empty.
    TrimForgotten,
    /// What a node had asked for followers who are gone counts for those who follow since.
    AnswerOfAnotherFeed,
    /// What a node had read of a topic is handed out in the next epoch, too.
    FanOutOutlivesEpoch,
    /// A cursor of an older epoch is taken back wherever it is by now.
    RewindsBlindly,
    /// What a producer left at a node is appended behind the reads of its pipeline.
    AppendBehindRead,
    /// Events of a node's own appends are expected on the next link, too.
    OwnEventsOutliveLink,
    /// The event of an append is expected although it was refused.
    RefusedAppendExpected,
    /// Nobody looks for what was appended while the event of a refused append was expected.
    RefusedAppendWakesNobody,
    /// Sessions do not look at what retention took from a topic.
    TrimUnseen,
    /// A node does not look at what retention took from a topic before it had read it.
    TrimUnseenByNode,
}
