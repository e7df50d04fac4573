//! A producer that reads the stream of receipts.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::history::{Event, Heard};
use super::recorder::Recorder;

const STREAM: &str = "homing:receipts";
/// Pause between two reads; also what a receipt may wait before it is in the history.
const PAUSE: Duration = Duration::from_millis(200);
const PATIENCE: Duration = Duration::from_secs(2);
/// Entries of one read.
const COUNT: usize = 1_000;

/// Reads until it is finished.
#[derive(Debug)]
pub(crate) struct Reader {
    finish: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Reader {
    pub(crate) fn start(recorder: Arc<Recorder>, redis: redis::Client) -> Self {
        let (finish, finished) = watch::channel(false);
        Self { finish, task: tokio::spawn(read(recorder, redis, finished)) }
    }

    /// Reads what is there, and no more.
    pub(crate) async fn finish(self) {
        self.finish.send_replace(true);
        self.task.await.expect("a reader of receipts does not panic");
    }
}

async fn read(recorder: Arc<Recorder>, redis: redis::Client, mut finished: watch::Receiver<bool>) {
    let (mut link, mut last) = (None, "-".to_owned());
    loop {
        let last_time = *finished.borrow();
        let read_all = match link.as_mut() {
            None => {
                link = connect(&redis).await;
                false
            }
            Some(connected) => match page(connected, &mut last, &recorder).await {
                Some(count) => count < COUNT,
                None => {
                    link = None;
                    false
                }
            },
        };
        if read_all && last_time {
            return;
        }
        if read_all || link.is_none() {
            tokio::select! {
                () = tokio::time::sleep(PAUSE) => {}
                _ = finished.wait_for(|finished| *finished), if !last_time => {}
            }
        }
    }
}

async fn connect(redis: &redis::Client) -> Option<MultiplexedConnection> {
    let config =
        redis::AsyncConnectionConfig::new().set_connection_timeout(Some(PATIENCE)).set_response_timeout(Some(PATIENCE));
    redis.get_multiplexed_async_connection_with_config(&config).await.ok()
}

/// Records the next receipts, and says how many there were; `None` if Redis does not answer.
async fn page(link: &mut MultiplexedConnection, last: &mut String, recorder: &Recorder) -> Option<usize> {
    let mut range = redis::cmd("XRANGE");
    range.arg(STREAM).arg(&*last).arg("+").arg("COUNT").arg(COUNT);
    let entries: Vec<(String, HashMap<String, String>)> = range.query_async(link).await.ok()?;
    let count = entries.len();
    for (id, mut fields) in entries {
        let mut take = |name: &str| fields.remove(name).unwrap_or_else(|| panic!("a receipt without {name}"));
        let (user, device, message, event) = (take("user"), take("device"), take("id"), take("event"));
        recorder.record(Event::Receipt { heard: Heard::Stream, user, device, id: message, event });
        *last = format!("({id}");
    }
    Some(count)
}
