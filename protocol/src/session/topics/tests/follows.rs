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
    Reply::FollowsLoaded(Box::new(Follows { topics, from_ms: 0, first_seen_ms: BEGIN_MS }))
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
            session.handle_reply(now, Command::LoadFollows, followed(&before), actions);
            actions.clear();
            session.handle_reply(now, Command::LoadFollows, followed(&after), actions);
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
            session.handle_reply(now, Command::LoadFollows, followed(&names), actions);
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
