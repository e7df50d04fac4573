//! The shared connection against a real server.

use futures_util::future::join_all;

use super::*;
use crate::store::test_server::TestServer;

const REPLY_TIMEOUT: Duration = Duration::from_millis(300);

fn line(url: &str) -> Line {
    let client = redis::Client::open(url).unwrap();
    let database = client.get_connection_info().redis_settings().db();
    Line::new(Dialer::new(&client, None).unwrap(), database, REPLY_TIMEOUT)
}

async fn echo(mut line: Line, number: usize) -> Result<usize, StoreError> {
    Ok(redis::cmd("ECHO").arg(number).query_async(&mut line).await?)
}

/// A reply handed to the wrong request would tell a producer the id of another's message.
#[tokio::test]
async fn requests_written_at_once_get_their_own_replies() {
    let server = TestServer::start(&[]);
    server.connect().await;
    let line = line(&server.url());
    let replies = join_all((0..1_000).map(|number| echo(line.clone(), number))).await;
    let replies: Vec<usize> = replies.into_iter().map(Result::unwrap).collect();
    assert_eq!(replies, (0..1_000).collect::<Vec<_>>());
}

#[tokio::test]
async fn the_password_and_the_database_of_the_url_are_used() {
    let server = TestServer::start(&["--requirepass", "secret"]);
    let path = server.url().replace("unix://", "redis+unix://");
    let mut right = line(&format!("{path}?db=3&pass=secret"));
    loop {
        // Until the server listens.
        let set = redis::cmd("SET").arg("key").arg(1).query_async::<()>(&mut right).await;
        if !set.is_err_and(|error| error.kind() == redis::ErrorKind::Io) {
            break;
        }
    }
    let info: String = redis::cmd("INFO").arg("keyspace").query_async(&mut right).await.unwrap();
    assert!(info.contains("db3:keys=1"), "{info}");
    let refused = echo(line(&format!("{path}?db=3&pass=wrong")), 1).await;
    assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{refused:?}");
}

/// Were it told "unavailable", its producer would publish it a second time.
#[tokio::test]
async fn what_was_sent_and_not_answered_has_an_unknown_outcome_and_the_next_request_a_new_connection() {
    let server = TestServer::start(&[]);
    let mut other = server.connect().await;
    let line = line(&server.url());
    assert_eq!(echo(line.clone(), 1).await.unwrap(), 1);
    redis::cmd("CLIENT").arg("PAUSE").arg(60_000).arg("WRITE").query_async::<()>(&mut other).await.unwrap();
    let write = redis::cmd("INCR").arg("key").query_async::<i64>(&mut line.clone()).await;
    let unanswered = write.map_err(StoreError::from);
    assert!(matches!(unanswered, Err(StoreError::OutcomeUnknown(_))), "{unanswered:?}");
    redis::cmd("CLIENT").arg("UNPAUSE").query_async::<()>(&mut other).await.unwrap();
    assert_eq!(echo(line, 3).await.unwrap(), 3);
}

#[tokio::test]
async fn without_a_server_nothing_was_executed() {
    let mut server = TestServer::start(&[]);
    server.connect().await;
    let line = line(&server.url());
    assert_eq!(echo(line.clone(), 1).await.unwrap(), 1);
    server.kill();
    // The first may still be written into a connection whose end has not been noticed.
    let _ = echo(line.clone(), 2).await;
    let refused = echo(line, 3).await;
    assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{refused:?}");
}
