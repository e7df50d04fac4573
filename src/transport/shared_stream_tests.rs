use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures_util::{Sink as _, SinkExt as _, StreamExt as _};
use socket2::SockRef;
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

use super::{SharedStream, SharedWriter};
use crate::delivery::outlet::{Frame, Writer as _, Written};

const FRAMES: usize = 1_000;
const BUFFER_BYTES: usize = 32 * 1024;

/// A connection with small buffers, so that writes are often cut short.
async fn narrow_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    SockRef::from(&listener).set_recv_buffer_size(BUFFER_BYTES).expect("a size");
    let client = TcpStream::connect(listener.local_addr().expect("an address")).await.expect("connect");
    let (server, _) = listener.accept().await.expect("accept");
    SockRef::from(&client).set_recv_buffer_size(BUFFER_BYTES).expect("a size");
    SockRef::from(&server).set_send_buffer_size(BUFFER_BYTES).expect("a size");
    (server, client)
}

/// Lengths on both sides of each way to write a length.
fn text(number: usize) -> String {
    let length = [0, 60, 125, 126, 127, 300, 5_000, 65_535, 65_536][number * 7 % 9];
    format!("{number:>8}{}", "x".repeat(length))
}

async fn write_all(stream: SharedStream, writer: Arc<SharedWriter>) -> [usize; 3] {
    let config = WebSocketConfig::default().write_buffer_size(0);
    let mut socket = WebSocketStream::from_raw_socket(stream, Role::Server, Some(config)).await;
    let mut scratch = Vec::new();
    let mut counts = [0; 3];
    for number in 0..FRAMES {
        if number % 5 == 0 {
            // What the socket does not take of this frame stays with the task.
            poll_fn(|context| {
                let _ = Pin::new(&mut socket).start_send(Message::text(text(number)));
                let _ = Pin::new(&mut socket).poll_flush(context);
                Poll::Ready(())
            })
            .await;
            // Now there is room again, and the shard must not take it.
            socket.get_ref().reader.as_ref().writable().await.expect("writable");
            continue;
        }
        let written = writer.write(&[Frame::Own(text(number))], &mut scratch);
        counts[written as usize] += 1;
        match written {
            Written::All => {}
            Written::Part if number % 2 == 0 => socket.flush().await.expect("flush"),
            // The rest goes before whatever the task writes next.
            Written::Part => {}
            Written::Nothing => socket.send(Message::text(text(number))).await.expect("send"),
        }
    }
    socket.get_ref().begin_close();
    socket.close(None).await.expect("close");
    assert_eq!(writer.write(&[Frame::Own("late".to_owned())], &mut scratch), Written::Nothing);
    while socket.next().await.is_some_and(|received| received.is_ok()) {}
    counts
}

#[tokio::test]
async fn frames_of_both_writers_arrive_whole_and_in_order() {
    let (server, client) = narrow_pair().await;
    let (stream, writer) = SharedStream::new(server);
    let writing = tokio::spawn(write_all(stream, writer));
    let mut client = WebSocketStream::from_raw_socket(client, Role::Client, None).await;
    let mut next = 0;
    while let Some(Ok(message)) = client.next().await {
        if let Message::Text(received) = message {
            assert!(received.as_str() == text(next), "frame {next} is another or broken");
            next += 1;
            if next % 100 == 0 {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        }
    }
    assert_eq!(next, FRAMES);
    let counts = writing.await.expect("no panic");
    assert!(counts.iter().all(|count| *count > 10), "each way was gone: {counts:?}");
}

#[tokio::test]
async fn a_connection_ends_with_its_task_though_the_shard_still_holds_the_writer() {
    let (server, mut client) = narrow_pair().await;
    let (stream, writer) = SharedStream::new(server);
    drop(stream);
    assert_eq!(client.read(&mut [0; 1]).await.expect("read"), 0);
    assert_eq!(writer.write(&[Frame::Own("late".to_owned())], &mut Vec::new()), Written::Nothing);
}

#[tokio::test]
async fn no_frame_follows_a_close() {
    let (server, _client) = narrow_pair().await;
    let (stream, writer) = SharedStream::new(server);
    assert_eq!(writer.write(&[Frame::Own("a".to_owned())], &mut Vec::new()), Written::All);
    stream.begin_close();
    assert_eq!(writer.write(&[Frame::Own("b".to_owned())], &mut Vec::new()), Written::Nothing);
}
