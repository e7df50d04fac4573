//! The examples of `docs/MIGRATING.md`, as the page has them: each is run by a shell against a real node.
//!
//! What the calls do is for `old_calls.rs` to show; this is about a page that a reader can paste from.

use std::path::Path;
use std::process::{Output, Stdio};

use serde_json::{Value, json};
use tokio::process::Command;

use crate::harness::folder::Folder;
use crate::harness::node::API_KEY;
use crate::harness::{Client, ConnectOptions, Node, NodeOptions, Redis, RedisOptions, eventually, within};
use crate::topics::follow;

/// Where the page believes the node to be.
const PAGE_ADDRESS: &str = "http://127.0.0.1:8080";
/// Its own calls in a text, beside those in blocks.
const INLINE_CALL: &str = "`call ";

/// A fenced block of a page.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Example {
    /// The heading above it.
    heading: String,
    language: String,
    text: String,
}

/// The fenced blocks of a page, and calls that stand in its text, in order.
fn examples(page: &str) -> Vec<Example> {
    let (mut examples, mut heading) = (Vec::new(), String::new());
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        if let Some(title) = line.strip_prefix('#') {
            title.trim_start_matches('#').trim().clone_into(&mut heading);
        } else if let Some(language) = line.strip_prefix("```") {
            let text: Vec<&str> = lines.by_ref().take_while(|line| !line.starts_with("```")).collect();
            examples.push(Example { heading: heading.clone(), language: language.to_owned(), text: text.join("\n") });
        } else if let Some((_, rest)) = line.split_once(INLINE_CALL) {
            let call = rest.split_once('`').unwrap_or_else(|| panic!("a call that goes on: {line}")).0;
            let (language, text) = ("sh".to_owned(), format!("call {call}"));
            examples.push(Example { heading: heading.clone(), language, text });
        }
    }
    examples
}

/// A shell that has what the page asks its reader for.
struct Shell {
    /// Where curl finds its settings.
    folder: Folder,
    node: String,
    redis_port: String,
    /// What the page says to begin with.
    prelude: String,
}

impl Shell {
    fn command(&self, text: &str) -> Command {
        let text = format!("{}\n{text}", self.prelude);
        let text = text.replace(PAGE_ADDRESS, &self.node);
        let text = text.replace("redis-cli ", &format!("redis-cli -p {} ", self.redis_port));
        let mut command = Command::new("sh");
        command.args(["-e", "-u", "-c", &text]).env("KEY", API_KEY).env("CURL_HOME", self.folder.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        command
    }

    /// Runs calls; status and body of each.
    async fn run(&self, example: &Example) -> Vec<(u16, Value)> {
        let output = within("an example ends", self.command(&example.text).output()).await.expect("there is a shell");
        let shown = text_of(&output);
        assert!(output.status.success(), "{example:?}: {shown}");
        let answers: Vec<(u16, Value)> = shown.lines().map(answer).collect();
        assert_eq!(answers.len(), example.text.matches("call ").count(), "{example:?}: {shown}");
        answers
    }
}

fn text_of(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// A line as curl is told to write it: the body, which has no line ends, and the status.
fn answer(line: &str) -> (u16, Value) {
    let parsed = line
        .rsplit_once(' ')
        .and_then(|(body, status)| Some((status.parse::<u16>().ok()?, serde_json::from_str(body).ok()?)));
    parsed.unwrap_or_else(|| panic!("no answer: {line}"))
}

fn has(program: &str) -> bool {
    std::process::Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success())
}

fn page() -> Vec<Example> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/MIGRATING.md");
    examples(&std::fs::read_to_string(path).expect("the page is there"))
}

#[test]
fn blocks_and_calls_of_a_page_are_found_with_their_headings() {
    let found = examples("# A\ntext\n\n```sh\ncall 1\ncall 2\n```\n## B\nas in: `call 3`.\n```js\nx\n```\n");
    let example = |heading: &str, language: &str, text: &str| Example {
        heading: heading.to_owned(),
        language: language.to_owned(),
        text: text.to_owned(),
    };
    assert_eq!(found, [example("A", "sh", "call 1\ncall 2"), example("B", "sh", "call 3"), example("B", "js", "x")]);
}

// A reader who pastes them gets what the text around them says.
#[tokio::test]
async fn every_example_of_the_page_does_what_it_says() {
    if !has("curl") || !has("redis-cli") {
        println!("no curl or no redis-cli: the examples of the page are not run");
        return;
    }
    let redis = Redis::start(RedisOptions::default()).await;
    let node = Node::start(&redis, NodeOptions::default()).await;
    let mut examples = page();
    let (folder, prelude) = (Folder::new("curl"), examples.remove(0).text);
    std::fs::write(folder.path().join(".curlrc"), "write-out = \" %{http_code}\\n\"\n").expect("a folder of the test");
    let redis_port = redis.address().split_once(':').expect("host and port").1.to_owned();
    assert!(prelude.contains(PAGE_ADDRESS), "{prelude}");
    let shell = Shell { folder, node: format!("http://{}", node.address()), redis_port, prelude };

    follow(&node, "room.1", "alice").await;
    let mut phone = Client::connect(&node, "alice", "phone", ConnectOptions::default()).await;
    let mut web = Client::connect(&node, "bob", "web", ConnectOptions::default()).await;
    let mut run = Vec::new();
    for example in examples {
        assert_eq!(example.language, "sh", "{example:?}");
        run.push(example.heading.clone());
        if example.text.starts_with("redis-cli ") {
            hear_of_a_login(&redis, &node, &shell, &example).await;
            continue;
        }
        let mut answers = shell.run(&example).await;
        for (status, answer) in &answers {
            assert!([200, 201].contains(status), "{example:?}: {status} {answer}");
        }
        let (status, answer) = answers.remove(0);
        match example.heading.as_str() {
            "One device" | "A room" | "Everybody" | "Who is offline" => {
                assert_eq!(status, 201, "{example:?}");
                let message = phone.next_message().await;
                assert_eq!((json!(message.id), message.json()), (answer["id"].clone(), json!({ "text": "hi" })));
                phone.ack(&[&message.id]).await;
                if example.heading == "Everybody" {
                    assert_eq!(json!(web.next_message().await.id), answer["id"]);
                }
            }
            "Many users" => {
                for (index, client) in [&mut phone, &mut web].into_iter().enumerate() {
                    let message = client.next_message().await;
                    assert_eq!(answer["results"][index], json!({ "status": 201, "id": message.id }));
                    client.ack(&[&message.id]).await;
                }
            }
            "Changing rooms" if answers.is_empty() => assert_eq!(answer["topics"][0]["topic"], "room.2", "{answer}"),
            "Changing rooms" => {
                assert_eq!((answer, answers.remove(0).1), (json!({ "changed": true }), json!({ "changed": true })));
                assert_eq!(node.get("/v1/users/alice/topics").await.1["topics"][0]["topic"], "room.3");
            }
            "Logins and logouts" => {
                let online = |index: usize| answer["items"][index]["devices"][0]["online"] == true;
                assert!(online(0) && online(1), "{answer}");
            }
            "Repeated logins" => {
                assert_eq!(answer, json!({ "disconnected": 1 }));
                let error = phone.expect_frame("error").await;
                assert_eq!((&error["code"], &error["message"]), (&json!("kicked"), &json!("logged in elsewhere")));
                phone.expect_close_code(4011).await;
            }
            _ => panic!("nobody looks at what this one does: {example:?}"),
        }
    }
    let headings = ["One device", "Many users", "A room", "Everybody", "Who is offline", "Changing rooms"];
    for heading in headings.iter().chain(&["Logins and logouts", "Repeated logins"]) {
        assert!(run.iter().any(|run| run == heading), "no example of {heading:?} in {run:?}");
    }
}

/// Runs a command that waits for an event, and lets a device appear once it does.
async fn hear_of_a_login(redis: &Redis, node: &Node, shell: &Shell, example: &Example) {
    let reading = shell.command(&example.text).spawn().expect("there is a shell");
    eventually("somebody reads events", async || {
        let clients: String = redis.query(&["CLIENT", "LIST"]).await;
        clients.lines().any(|client| client.contains("cmd=xread")).then_some(())
    })
    .await;
    let client = Client::connect(node, "carol", "tv", ConnectOptions::default()).await;
    let output = within("an event", reading.wait_with_output()).await.expect("a child can be waited for");
    let shown = text_of(&output);
    let words: Vec<&str> = shown.lines().collect();
    let fields = [["event", "online"], ["user", "carol"], ["device", "tv"]];
    assert!(fields.iter().all(|pair| words.windows(2).any(|words| words == pair)), "{example:?}: {shown}");
    client.close().await;
}
