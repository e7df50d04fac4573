//! Single sequences, each with what would be lost if it went wrong.

use super::*;

#[test]
fn a_loss_is_told_also_if_the_session_ends_as_soon_as_it_knows() {
    let mut world = World::new(false);
    world.connect(0, 4, true);
    world.turn();
    world.send();
    let news = Topic::parse("news").expect("a name");
    let trimmed = EntryId { ms: BEGIN_MS + 5, seq: 0 };
    world.with(
        |session, now, actions| {
            let loaded: Answer = Reply::FollowsLoaded(Box::new(Follows {
                topics: vec![(Name::parse("news").expect("a name"), BEGIN_MS)],
                begin: Some(BEGIN),
            }));
            session.handle_reply(now, Command::LoadFollows { begin: true }, loaded, actions);
            session.poll_commands(now, false, &mut Vec::new());
            let answer: Answer = Reply::CursorLoaded { at: None, trimmed, end: None };
            session.handle_reply(now, Command::LoadCursor { topic: news.clone(), rewound: false }, answer, actions);
            session.handle_disconnected();
            let mut commands = Vec::new();
            session.poll_commands(now, false, &mut commands);
            let told =
                |command: &Command| matches!(command, Command::SetAside { reason: GapReason::Retention, gone: 1, .. });
            let told = commands.iter().position(told).expect("the loss is told");
            let written = commands.iter().position(|command| matches!(command, Command::WriteCursor { .. }));
            assert!(written.is_none_or(|written| told < written), "{commands:?}");
            assert!(!commands.iter().any(|command| matches!(command, Command::ReadTopic { .. })));
        },
        None,
    );
}

#[test]
fn what_retention_took_before_its_node_had_read_it_is_told() {
    let news = Topic::parse("news").expect("a name");
    let id = |seq| EntryId { ms: BEGIN_MS, seq };
    for (left, last) in [(vec![3], id(3)), (vec![], id(2))] {
        let mut world = World::new(false);
        world.connect(0, 4, true);
        world.settle();
        world.heads[0].insert(news.clone(), EntryId::MIN);
        world.publish(false);
        world.feed(0);
        world.ack(0);
        world.settle();
        let seen = world.heads[0][&news];
        assert_eq!(seen, id(1));
        // The second entry came and went before the node read on.
        let entries: Vec<_> = left.iter().map(|seq| entry(id(*seq))).collect();
        let batch = TopicBatch::new(news.clone(), (seen, id(2)), &entries, 1 << 16, 1 << 16);
        assert_eq!(batch.last(), last);
        let mut actions = Vec::new();
        let now = world.now;
        let session = &mut world.connection.as_mut().expect("it is connected").session;
        session.handle_topic_batch(now, &batch, false, &mut actions);
        assert_eq!(actions, [], "nothing is handed out behind what may be missing");
        let mut commands = Vec::new();
        session.poll_commands(now, false, &mut commands);
        let read = commands.into_iter().find(|command| matches!(command, Command::ReadTopic { .. }));
        let answer: Answer = Reply::TopicRead { entries, trimmed: id(2) };
        session.handle_reply(now, read.expect("it reads for itself"), answer, &mut actions);
        assert!(matches!(actions[0], Action::Dropped { reason: GapReason::Retention, count: 1 }), "{actions:?}");
        let delivered = actions.iter().filter(|action| matches!(action, Action::Delivered { .. })).count();
        assert_eq!(delivered, left.len());
    }
}

// The successor may have read the cursor before it was written, and gives the message out again.
#[test]
fn an_ack_is_not_confirmed_once_another_connection_has_taken_over() {
    let mut world = World::new(false);
    world.connect(0, 4, true);
    world.settle();
    world.publish(false);
    world.feed(0);
    world.generation += 1;
    world.ack(0);
    world.settle();
    assert_eq!(world.confirmed, BTreeSet::new());
    let connection = world.connection.expect("it was connected");
    assert!(connection.session.is_ended(), "it has found out that it is not the newest");
    assert_eq!(world.cursors[&topics()[1]], world.last, "what was acked is done with all the same");
}

/// A session with two messages, of which the second one is acked, and their ids.
fn second_acked() -> (World, Vec<String>) {
    let mut world = World::new(false);
    world.connect(0, 4, true);
    world.settle();
    world.publish(false);
    world.publish(false);
    world.feed(0);
    let ids = world.connection.as_ref().expect("it is connected").unacked.clone();
    world.ack(1);
    world.settle();
    assert_eq!(world.confirmed, BTreeSet::new(), "one before it is not acked");
    (world, ids)
}

#[test]
fn acks_that_wait_for_a_cursor_are_confirmed_when_the_topic_is_followed_no_more() {
    let (mut world, ids) = second_acked();
    let none: Answer = Reply::FollowsLoaded(Box::new(Follows { begin: Some(BEGIN), ..Follows::default() }));
    world.with(
        |session, now, actions| session.handle_reply(now, Command::LoadFollows { begin: true }, none, actions),
        None,
    );
    assert_eq!(world.confirmed, BTreeSet::from([ids[1].clone()]));
}

// Ids may run backwards then: a cursor of before would hide what is appended next.
#[test]
fn a_cursor_that_was_not_written_is_dropped_with_its_epoch_also_by_a_session_that_ends() {
    for ends_first in [true, false] {
        let mut world = World::new(false);
        world.connect(0, 4, true);
        world.settle();
        world.publish(false);
        world.feed(0);
        world.ack(0);
        world.send();
        world.reply(true);
        if ends_first {
            world.with(|session, _, _| session.handle_disconnected(), None);
        }
        world.with(|session, _, _| session.handle_epoch(2), None);
        world.with(|session, _, _| session.handle_disconnected(), None);
        world.pass(2_000);
        world.settle();
        assert_eq!(world.cursors, BTreeMap::new(), "it ended before the epoch: {ends_first}");
    }
}

// Nobody waits to hear that it was written, so only failure is told.
#[test]
fn a_cursor_that_was_taken_for_written_is_written_again_if_it_was_not() {
    for failure in [Failure::Disconnected, Failure::Refused] {
        let mut world = World { confirms: false, ..World::new(false) };
        world.connect(0, 4, true);
        world.settle();
        world.publish(false);
        world.feed(0);
        world.ack(0);
        world.pass(2_000);
        world.send();
        let flight = std::mem::take(&mut world.connection.as_mut().expect("it is connected").flight);
        assert!(flight.iter().any(|(command, _)| matches!(command, Command::WriteCursor { confirm: false, .. })));
        for (command, _) in flight {
            let failed: Answer = Reply::Failed(failure);
            world.with(|session, now, actions| session.handle_reply(now, command, failed, actions), None);
        }
        world.settle();
        assert_eq!(world.cursors.get(&topics()[1]), None, "not at once: {failure:?}");
        world.pass(2_000);
        world.settle();
        assert_eq!(world.cursors.get(&topics()[1]), Some(&world.last), "{failure:?}");
    }
}

// The cursor may lie behind what the node has seen, if another node acknowledged it; only the log's own end tells, and
// only if it was asked for later.
#[test]
fn a_cursor_beyond_the_end_of_its_log_goes_back_to_where_the_device_began() {
    let news = topics()[1].clone();
    let id = |ms| EntryId { ms: BEGIN_MS + ms, seq: 0 };
    // Cursor, log's end, and then: where it reads on from, what it writes.
    let cases = [
        (Some(id(50)), id(20), EntryId { ms: BEGIN_MS - 1, seq: u64::MAX }, Some(id(50))),
        (Some(id(20)), id(20), id(20), None),
        (None, EntryId { ms: 5, seq: 0 }, EntryId { ms: 5, seq: 0 }, None),
        (None, id(20), EntryId { ms: BEGIN_MS - 1, seq: u64::MAX }, None),
    ];
    for (at, end, after, rewind) in cases {
        let mut world = World::new(false);
        world.connect(0, 4, true);
        world.with(|session, _, _| session.handle_epoch(2), None);
        let load = Command::LoadCursor { topic: news.clone(), rewound: true };
        let is_sent = |world: &World| {
            let mut flight = world.connection.iter().flat_map(|connection| &connection.flight);
            flight.any(|(command, _)| *command == load)
        };
        while !is_sent(&world) {
            world.execute();
            world.reply(false);
            world.send();
        }
        world.execute();
        let (mut actions, mut commands, now) = (Vec::new(), Vec::new(), world.now);
        let connection = world.connection.as_mut().expect("it is connected");
        let (flight, session) = (std::mem::take(&mut connection.flight), &mut connection.session);
        for (command, answer) in flight.into_iter().filter(|(command, _)| *command != load) {
            session.handle_reply(now, command, answer.expect("it was executed"), &mut actions);
        }
        session.handle_topic_ready(&news, id(10));
        let answer: Answer = Reply::CursorLoaded { at, trimmed: EntryId::MIN, end: Some(end) };
        session.handle_reply(now, load, answer, &mut actions);
        session.handle_topic_ready(&news, id(60));
        session.poll_commands(now, false, &mut commands);
        let reads = commands.iter().find_map(|command| match command {
            Command::ReadTopic { topic, after, .. } if *topic == news => Some(*after),
            _ => None,
        });
        assert_eq!(reads, Some(after), "{at:?}, {end:?}");
        let write = Command::WriteCursor { topic: news.clone(), id: after, rewind, confirm: true };
        assert_eq!(commands.contains(&write), rewind.is_some(), "{commands:?}");
    }
}

// What the client never had it cannot have handled: to confirm that would only hide its mistake.
#[test]
fn an_ack_of_what_lies_before_the_devices_begin_is_not_confirmed() {
    let mut world = World::new(false);
    world.connect(0, 4, true);
    world.settle();
    world.publish(false);
    world.feed(0);
    let given = world.connection.as_ref().expect("it is connected").unacked[0].clone();
    let ids = [
        format!("news/{}-0", BEGIN_MS - 1),
        format!("*/{}-7", BEGIN_MS - 1),
        format!("news/{}-0", BEGIN_MS + 1_000),
        given.clone(),
    ];
    let ids: Vec<String> = ids.iter().map(|id| format!("{id:?}")).collect();
    let text = format!(r#"{{"type":"ack","ids":[{}]}}"#, ids.join(","));
    world.with(|session, now, actions| session.handle_frame(now, Incoming::parse(&text), actions), None);
    world.settle();
    assert_eq!(world.confirmed, BTreeSet::from([given]));
}

#[test]
fn what_was_acked_behind_a_message_that_expires_is_written_and_confirmed() {
    let (mut world, ids) = second_acked();
    world.pass(31_000);
    world.send();
    world.execute();
    let flight = &mut world.connection.as_mut().expect("it is connected").flight;
    let reread = flight.iter_mut().find(|(command, _)| matches!(command, Command::RereadTopic { .. }));
    // It is gone from the log.
    reread.expect("it is read again").1 = Some(Reply::TopicReread(Vec::new()));
    world.reply(false);
    world.settle();
    // That the loss is told was refused.
    world.pass(1_000);
    world.settle();
    assert_eq!(world.confirmed, BTreeSet::from([ids[1].clone()]));
    assert_eq!(world.cursors[&topics()[1]], world.last);
}

// Another connection of the device may have taken over: what stands in Redis is its.
#[test]
fn a_forget_of_a_device_that_is_another_connections_by_now_forgets_nothing() {
    for was_known in [true, false] {
        let mut world = World::new(false);
        world.connect(0, 4, true);
        world.settle();
        let frame = Incoming::parse(r#"{"type":"forget"}"#);
        world.with(|session, now, actions| session.handle_frame(now, frame, actions), None);
        world.send();
        world.execute();
        let flight = &mut world.connection.as_mut().expect("it is connected").flight;
        let forget = flight.iter_mut().find(|(command, _)| matches!(command, Command::Forget { .. }));
        forget.expect("it forgets").1 = Some(Reply::Forgotten(was_known));
        world.reply(false);
        let session = &world.connection.as_ref().expect("it was connected").session;
        assert_eq!((session.is_ended(), session.is_forgotten()), (true, was_known));
        let cursors: Vec<_> = session.cursors().map(|(topic, up_to_ms)| (topic.clone(), up_to_ms)).collect();
        assert_eq!(cursors, topics().map(|topic| (topic, Some(BEGIN_MS - 1))));
    }
}

// It would bring back what was to be forgotten.
#[test]
fn a_session_whose_device_was_removed_writes_no_cursor() {
    for removed in [false, true] {
        let mut world = World { confirms: false, ..World::new(false) };
        world.connect(0, 4, true);
        world.settle();
        world.publish(false);
        world.feed(0);
        world.ack(0);
        let generation = world.generation;
        world.with(
            |session, _, actions| match removed {
                true => session.handle_removed(generation, actions),
                false => session.handle_disconnected(),
            },
            None,
        );
        world.settle();
        assert!(world.connection.as_ref().expect("it was connected").session.is_done());
        assert_eq!(world.cursors.contains_key(&topics()[1]), !removed);
    }
}
