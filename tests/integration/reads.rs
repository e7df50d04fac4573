//! Inboxes that have something new at the same time are asked for together.

use crate::harness::{Client, ConnectOptions, Node, NodeOptions, Redis, RedisOptions};

const USERS: usize = 12;

fn inbox(user: usize) -> String {
    format!("homing:{{user-{user}}}:inbox")
}

async fn connect_all(node: &Node, device: impl Fn(usize) -> String) -> Vec<Client> {
    let mut clients = Vec::new();
    for user in 0..USERS {
        let options = ConnectOptions { confirm: true, ..ConnectOptions::default() };
        clients.push(Client::connect(node, &format!("user-{user}"), &device(user), options).await);
    }
    clients
}

/// Calls of a command, and those that Redis refused to execute, since the last time.
async fn calls(redis: &Redis, command: &str) -> (usize, usize) {
    let stats: String = redis.query(&["INFO", "commandstats"]).await;
    redis.query::<()>(&["CONFIG", "RESETSTAT"]).await;
    let head = format!("cmdstat_{command}:");
    let Some(line) = stats.lines().find_map(|line| line.strip_prefix(&head)) else { return (0, 0) };
    let number = |name: &str| {
        let value = line.split(',').find_map(|part| part.strip_prefix(name)).expect("a member of the line");
        value.parse::<usize>().expect("a number")
    };
    (number("calls="), number("failed_calls="))
}

#[tokio::test]
async fn many_inboxes_are_read_by_few_commands_if_their_devices_are_called_alike() {
    let redis = Redis::start(RedisOptions::default()).await;
    // No sweep reads meanwhile.
    let node = Node::start(&redis, NodeOptions::default().set("shards", "1").set("sweep", "1h")).await;
    let mut clients = connect_all(&node, |_| "web".to_owned()).await;
    for round in 0..5 {
        let mut at_once = redis::pipe();
        at_once.atomic();
        for user in 0..USERS {
            at_once.cmd("XADD").arg(inbox(user)).arg("*").arg("data").arg(format!("{round}:{user}"));
        }
        calls(&redis, "xreadgroup").await;
        let ids: Vec<String> = at_once.query_async(&mut redis.connection().await).await.expect("a transaction");
        for (user, client) in clients.iter_mut().enumerate() {
            let message = client.next_message().await;
            assert_eq!((&message.id, message.data.get()), (&ids[user], format!("\"{round}:{user}\"").as_str()));
            client.ack_confirmed(&[&message.id]).await;
        }
        let (reads, refused) = calls(&redis, "xreadgroup").await;
        // Each inbox is read until there is nothing more.
        assert!(reads < USERS && refused == 0, "{reads} reads");
    }
}

#[tokio::test]
async fn devices_that_are_called_otherwise_are_served_as_well() {
    let redis = Redis::start(RedisOptions::default()).await;
    let node = Node::start(&redis, NodeOptions::default().set("shards", "1")).await;
    let mut clients = connect_all(&node, |user| format!("device-{}", user / 3)).await;
    let mut at_once = redis::pipe();
    at_once.atomic();
    for user in 0..USERS {
        for number in 0..=user {
            at_once.cmd("XADD").arg(inbox(user)).arg("*").arg("data").arg(number).ignore();
        }
    }
    at_once.query_async::<()>(&mut redis.connection().await).await.expect("a transaction");
    for (user, client) in clients.iter_mut().enumerate() {
        let messages = client.next_messages(user + 1).await;
        let data: Vec<String> = messages.iter().map(|message| message.data.get().to_owned()).collect();
        assert_eq!(data, (0..=user).map(|number| format!("\"{number}\"")).collect::<Vec<_>>());
    }
}

// A wake-up may come for what is gone again.
#[tokio::test]
async fn inboxes_without_news_among_others_take_nobodys_messages() {
    let redis = Redis::start(RedisOptions::default()).await;
    let node = Node::start(&redis, NodeOptions::default().set("shards", "1")).await;
    let mut clients = connect_all(&node, |_| "web".to_owned()).await;
    let mut at_once = redis::pipe();
    at_once.atomic();
    for user in 0..USERS {
        at_once.cmd("XADD").arg(inbox(user)).arg("9000000000000-1").arg("data").arg(user).ignore();
        if user % 3 == 0 {
            at_once.cmd("XDEL").arg(inbox(user)).arg("9000000000000-1").ignore();
        }
    }
    at_once.query_async::<()>(&mut redis.connection().await).await.expect("a transaction");
    for (user, client) in clients.iter_mut().enumerate() {
        if user % 3 == 0 {
            redis.publish(&format!("user-{user}"), &user.to_string()).await;
        }
        assert_eq!(client.next_message().await.data.get(), format!("\"{user}\""));
    }
}

// Redis refuses a command over many streams as a whole if one of them has no such group, or is none.
#[tokio::test]
async fn an_inbox_that_cannot_be_read_keeps_no_other_from_being_read() {
    const BROKEN: usize = 3;
    const WITHOUT_GROUP: usize = 5;
    let redis = Redis::start(RedisOptions::default()).await;
    let node = Node::start(&redis, NodeOptions::default().set("shards", "1").set("sweep", "1h")).await;
    let mut clients = connect_all(&node, |_| "web".to_owned()).await;
    let mut at_once = redis::pipe();
    at_once.atomic();
    for user in 0..USERS {
        at_once.cmd("XADD").arg(inbox(user)).arg("*").arg("data").arg(user).ignore();
    }
    at_once.cmd("DEL").arg(inbox(BROKEN)).ignore().cmd("SET").arg(inbox(BROKEN)).arg("x").ignore();
    at_once.cmd("XGROUP").arg("DESTROY").arg(inbox(WITHOUT_GROUP)).arg("web").ignore();
    calls(&redis, "xreadgroup").await;
    at_once.query_async::<()>(&mut redis.connection().await).await.expect("a transaction");
    for (user, client) in clients.iter_mut().enumerate().filter(|(user, _)| *user != BROKEN) {
        let message = client.next_message().await;
        assert_eq!((message.data.get(), message.attempt), (format!("\"{user}\"").as_str(), 1));
        client.ack_confirmed(&[&message.id]).await;
    }
    assert_eq!(clients[WITHOUT_GROUP].expect_frame("gap").await["reason"], "epoch");
    let error = clients[BROKEN].expect_frame("error").await;
    assert_eq!(error["code"], "inbox_unusable");
    let (_, refused) = calls(&redis, "xreadgroup").await;
    assert!(refused >= 3, "all of them, and then the two that cannot be read: {refused}");
}
