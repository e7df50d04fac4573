//! What a user follows: taken over, left, and asked about a part at a time.

use super::*;

#[test]
fn nothing_of_a_topic_comes_after_the_word_that_it_is_left() {
    let mut world = World::new(false);
    world.connect(0, 4, true);
    world.settle();
    let frame = Incoming::parse(r#"{"type":"unfollow","topics":["news"]}"#);
    world.with(|session, now, actions| session.handle_frame(now, frame, actions), None);
    world.send();
    world.publish(false);
    let news = Name::parse("news").expect("a name");
    let connection = world.connection.as_mut().expect("it is connected");
    let (command, _) = connection.flight.pop_front().expect("the change is asked for");
    assert!(matches!(command, Command::Follow { .. }));
    let change = FollowChange { removed: vec![news], ..FollowChange::default() };
    let mut told = false;
    world.with(
        |session, now, actions| {
            let answer: Answer = Reply::Followed(Ok(change));
            session.handle_reply(now, command, answer, actions);
            told = actions.iter().any(|action| matches!(action, Action::Send(text) if text.contains("unfollowed")));
        },
        None,
    );
    assert!(told, "the client is told");
    world.feed(0);
    assert!(world.seen.is_empty(), "{:?}", world.seen);
}

fn followed(names: &[String]) -> Answer {
    let topics = names.iter().map(|name| (Name::parse(name).expect("a name"), BEGIN_MS)).collect();
    Reply::FollowsLoaded(Box::new(Follows { topics, begin: Some(BEGIN) }))
}

#[test]
fn what_a_user_follows_is_taken_over_whatever_it_was_before_and_in_whatever_order_it_comes() {
    let mut world = World::new(false);
    world.connect(0, 4, true);
    world.turn();
    let before = ["z", "b", "a", "c"].map(str::to_owned);
    let after = ["e", "c", "0", "a"].map(str::to_owned);
    world.with(
        |session, now, actions| {
            session.handle_reply(now, Command::LoadFollows { begin: true }, followed(&before), actions);
            actions.clear();
            session.handle_reply(now, Command::LoadFollows { begin: true }, followed(&after), actions);
            let topic = |name: &str| Topic::parse(name).expect("a name");
            let (left, came): (Vec<_>, Vec<_>) =
                actions.drain(..).partition(|action| matches!(action, Action::Unfollow(_)));
            assert_eq!(left, ["b", "z"].map(|name| Action::Unfollow(topic(name))));
            assert_eq!(came, ["0", "e"].map(|name| Action::Follow(topic(name))));
            let names: Vec<&str> = session.topics().map(Topic::as_str).collect();
            assert_eq!(names, ["*", "0", "a", "c", "e"]);
        },
        None,
    );
}

#[test]
fn a_user_of_a_thousand_topics_asks_for_its_cursors_a_part_at_a_time() {
    let mut world = World::new(false);
    world.connect(0, 4, true);
    world.turn();
    let names: Vec<String> = (0..1_000).map(|number| format!("t{number}")).collect();
    world.with(
        |session, now, actions| {
            session.handle_reply(now, Command::LoadFollows { begin: true }, followed(&names), actions);
            let mut asked = 0;
            while session.urgency(now, false) == crate::session::Urgency::Now && asked < 1_001 {
                let mut commands = Vec::new();
                session.poll_commands(now, false, &mut commands);
                let loads = commands.iter().filter(|command| matches!(command, Command::LoadCursor { .. })).count();
                assert!((1..=256).contains(&loads), "{loads}");
                asked += loads;
            }
            actions.clear();
            assert_eq!(asked, 1_001, "the broadcast topic's among them");
        },
        None,
    );
}

// Idle sessions load what they follow with every sweep; where they begin is in a record that costs as much again.
#[test]
fn where_a_device_begins_is_asked_for_once_in_an_epoch() {
    let mut world = World::new(false);
    world.connect(0, 4, true);
    world.turn();
    world.turn();
    world.with(
        |session, now, actions| {
            let asked = |session: &mut Session| {
                let mut commands = Vec::new();
                session.poll_commands(now, false, &mut commands);
                commands.into_iter().find(|command| matches!(command, Command::LoadFollows { .. }))
            };
            let topics = vec![(Name::parse("news").expect("a name"), BEGIN_MS)];
            let loaded = |begin| Answer::FollowsLoaded(Box::new(Follows { topics: topics.clone(), begin }));

            session.handle_topics_changed();
            let load = asked(session).expect("a load");
            assert_eq!(load, Command::LoadFollows { begin: false });
            // The reply comes late, when what was known is of an older epoch.
            session.handle_epoch(9);
            session.handle_reply(now, load, loaded(None), actions);
            assert_eq!(session.topics().count(), 2, "what it says is not believed without a beginning");
            let attachment = Attachment { generation: 1, incarnation: 1, ..Attachment::default() };
            let mut commands = Vec::new();
            session.poll_commands(now, false, &mut commands);
            let attach = commands.into_iter().find(|command| matches!(command, Command::Attach(_)));
            let attach = attach.expect("a new epoch is attached to");
            session.handle_reply(now, attach, Answer::Attached(Box::new(Ok(attachment))), actions);
            let load = asked(session).expect("another load");
            assert_eq!(load, Command::LoadFollows { begin: true });
            session.handle_reply(now, load, loaded(Some(BEGIN)), actions);
            assert_eq!(asked(session), None);
        },
        None,
    );
}
