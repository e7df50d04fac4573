//! A producer over HTTP: one connection that is kept, one request at a time.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::fleet::Fleet;
use super::orders::Fatal;
use super::schedule::Schedule;
use crate::bench::clock::{Pacer, now_us};

/// Pause before a connection that was lost or refused is made anew.
const RETRY_PAUSE: Duration = Duration::from_millis(200);
/// Longest head of an answer.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// Publishes until the schedule ends.
pub(crate) async fn produce(
    fleet: &Fleet,
    mut schedule: Schedule,
    lane: u32,
    api_key: &str,
    batch: u32,
) -> Result<(), Fatal> {
    let broken = |error: std::io::Error| Fatal::Broken(error.to_string());
    let pacer = Pacer::new().map_err(broken)?;
    let mut connection = Connection { fleet, lane, api_key, stream: None, answer: Vec::new() };
    let (mut users, mut body) = (Vec::new(), Vec::new());
    loop {
        let max = schedule.in_flight_max().unwrap_or(u64::MAX).max(u64::from(batch));
        if fleet.in_flight().saturating_add(u64::from(batch)) > max && schedule.due_us(now_us()).is_some() {
            fleet.movement().await;
            continue;
        }
        // A batch is due when its last message is, and all of its messages are meant for that time.
        users.clear();
        let mut due_us = None;
        while users.len() < batch as usize
            && let Some(at_us) = schedule.due_us(now_us())
        {
            due_us = Some(at_us);
            users.push(schedule.take());
        }
        let Some(due_us) = due_us else { return Ok(()) };
        pacer.until(due_us).await.map_err(broken)?;
        write_body(fleet, &users, due_us, batch, &mut body);
        let path = match batch {
            1 => format!("/v1/users/{}/messages", fleet.user(users[0])),
            _ => "/v1/messages".to_owned(),
        };
        match connection.post(&path, &body).await {
            Ok(Answer { status: 200 | 201, accepted }) if batch == 1 || accepted == users.len() => {
                users.iter().for_each(|user| fleet.answered(*user, None));
            }
            // Which of them were refused does not matter to the counts, and nothing here expects a refusal.
            Ok(Answer { status: 200, accepted }) => {
                let accepted = users.iter().enumerate().map(|(index, user)| (index < accepted, user));
                accepted.for_each(|(is, user)| fleet.answered(*user, (!is).then_some("part of a batch was refused")));
            }
            Ok(Answer { status: status @ (401 | 403), .. }) => {
                return Err(Fatal::Refused(format!(
                    "publishing was answered with {status}: the API key is not accepted"
                )));
            }
            Ok(Answer { status, .. }) => {
                let trouble = format!("publishing was answered with {status}");
                users.iter().for_each(|user| fleet.answered(*user, Some(&trouble)));
                tokio::time::sleep(RETRY_PAUSE).await;
            }
            Err(error) => {
                let trouble = format!("publishing: {error}");
                users.iter().for_each(|user| fleet.answered(*user, Some(&trouble)));
                fleet.tally.borrow_mut().counts.retries += 1;
                connection.stream = None;
                tokio::time::sleep(RETRY_PAUSE).await;
            }
        }
    }
}

fn write_body(fleet: &Fleet, users: &[u32], due_us: u64, batch: u32, body: &mut Vec<u8>) {
    body.clear();
    if batch == 1 {
        body.extend_from_slice(br#"{"data":"#);
        fleet.payloads.push(body, fleet.send(users[0], due_us));
        body.push(b'}');
        return;
    }
    body.extend_from_slice(br#"{"messages":["#);
    for (index, user) in users.iter().enumerate() {
        body.extend_from_slice(if index == 0 { br#"{"user":""# } else { br#",{"user":""# });
        body.extend_from_slice(fleet.user(*user).as_bytes());
        body.extend_from_slice(br#"","data":"#);
        fleet.payloads.push(body, fleet.send(*user, due_us));
        body.push(b'}');
    }
    body.extend_from_slice(b"]}");
}

struct Answer {
    status: u16,
    /// Of a batch.
    accepted: usize,
}

struct Connection<'a> {
    fleet: &'a Fleet,
    lane: u32,
    api_key: &'a str,
    stream: Option<TcpStream>,
    answer: Vec<u8>,
}

impl Connection<'_> {
    async fn post(&mut self, path: &str, body: &[u8]) -> std::io::Result<Answer> {
        let (target, addresses) = self.fleet.target(self.lane * self.fleet.plan.devices);
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => {
                let stream = TcpStream::connect(addresses).await?;
                stream.set_nodelay(true)?;
                stream
            }
        };
        let head = format!(
            "POST {}{path} HTTP/1.1\r\nHost: {}:{}\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n",
            target.path,
            target.host,
            target.port,
            self.api_key,
            body.len()
        );
        let mut request = Vec::with_capacity(head.len() + body.len());
        request.extend_from_slice(head.as_bytes());
        request.extend_from_slice(body);
        stream.write_all(&request).await?;
        let answer = self.read_answer(&mut stream).await?;
        self.stream = Some(stream);
        Ok(answer)
    }

    async fn read_answer(&mut self, stream: &mut TcpStream) -> std::io::Result<Answer> {
        self.answer.clear();
        let (status, end) = loop {
            if let Some(head) = parse_head(&self.answer) {
                break head;
            }
            if self.answer.len() > HEAD_BYTES_MAX || stream.read_buf(&mut self.answer).await? == 0 {
                return Err(std::io::Error::other("the answer is not complete"));
            }
        };
        while self.answer.len() < end {
            if stream.read_buf(&mut self.answer).await? == 0 {
                return Err(std::io::Error::other("the answer is not complete"));
            }
        }
        let accepted = br#""status":201"#;
        let accepted = self.answer.windows(accepted.len()).filter(|window| window == accepted).count();
        Ok(Answer { status, accepted })
    }
}

/// Status, and how long head and body are together; `None` if the head is not complete.
fn parse_head(answer: &[u8]) -> Option<(u16, usize)> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut response = httparse::Response::new(&mut headers);
    let Ok(httparse::Status::Complete(head)) = response.parse(answer) else { return None };
    let length = response.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"));
    let length = length.and_then(|header| std::str::from_utf8(header.value).ok()?.trim().parse().ok()).unwrap_or(0);
    Some((response.code?, head + length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_as_long_as_its_head_says() {
        let answer = b"HTTP/1.1 201 Created\r\nContent-Length: 5\r\n\r\n{\"i\"";
        assert_eq!(parse_head(answer), Some((201, answer.len() + 1)));
        assert_eq!(parse_head(&answer[..20]), None);
    }
}
