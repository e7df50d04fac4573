use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Poll, Wake};

use super::*;

struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

fn write(commands: &mut Commands) {
    commands.command(1).arg("APPEND");
}

fn polled<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// Reads `ann`'s inbox, and can send.
fn open() -> Piggyback {
    let piggyback = Piggyback::default();
    piggyback.welcome(&name("ann"));
    piggyback.open();
    piggyback
}

fn complete(riders: Vec<Rider>, replies: &[u8]) -> Vec<bool> {
    let replies = Replies::scanned(replies).unwrap();
    let mut reader = replies.reader();
    let appended = riders.into_iter().map(|rider| rider.complete(&mut reader)).collect();
    assert_eq!(reader.next(), None, "each took its own replies");
    appended
}

#[test]
fn what_waits_leaves_in_order_and_each_gets_its_replies() {
    let piggyback = open();
    let (ann, count) = (name("ann"), Arc::new(Count(AtomicUsize::new(0))));
    let waker = Waker::from(count.clone());
    assert!(!piggyback.poll(&Context::from_waker(&waker)));
    let mut first = pin!(piggyback.send(&ann, write));
    let mut second = pin!(piggyback.send(&ann, |commands| {
        write(commands);
        commands.command(1).arg("LENGTH");
    }));
    assert!(polled(first.as_mut()).is_pending() && polled(second.as_mut()).is_pending());
    assert_eq!(count.0.load(Ordering::Relaxed), 1, "woken once");
    assert!(piggyback.poll(&Context::from_waker(&waker)));
    let mut pipeline = Commands::default();
    pipeline.command(1).arg("FIRST");
    let riders = piggyback.take(&mut pipeline);
    let words = String::from_utf8(pipeline.bytes().to_vec()).unwrap();
    let words: Vec<&str> =
        words.split("\r\n").filter(|word| !word.is_empty() && !word.starts_with(['*', '$'])).collect();
    assert_eq!((pipeline.len(), words), (4, vec!["FIRST", "APPEND", "APPEND", "LENGTH"]));
    assert!(!piggyback.poll(&Context::from_waker(&waker)) && piggyback.take(&mut pipeline).is_empty());
    assert_eq!(riders.iter().map(|rider| rider.user().as_str()).collect::<Vec<_>>(), ["ann", "ann"]);
    assert_eq!(complete(riders, b"$3\r\n1-0\r\n$3\r\n2-0\r\n:7\r\n"), [true, true]);
    let Poll::Ready(Some(Ok(replies))) = polled(first) else { panic!("no replies") };
    assert_eq!(replies.bytes(), b"$3\r\n1-0\r\n");
    let Poll::Ready(Some(Ok(replies))) = polled(second) else { panic!("no replies") };
    assert_eq!(replies.bytes(), b"$3\r\n2-0\r\n:7\r\n");
}

#[test]
fn whether_something_was_appended_is_told_of_commands_and_functions() {
    let cases: [(&[u8], bool); 5] = [
        (b"$3\r\n1-0\r\n", true),
        (b"*2\r\n$3\r\n1-0\r\n:1\r\n", true),
        (b"*2\r\n$3\r\n1-0\r\n:0\r\n", false),
        (b"-OOM no memory\r\n", false),
        (b"$-1\r\n", false),
    ];
    for (reply, appended) in cases {
        let piggyback = open();
        let ann = name("ann");
        let mut sending = pin!(piggyback.send(&ann, write));
        assert!(polled(sending.as_mut()).is_pending());
        assert_eq!(complete(piggyback.take(&mut Commands::default()), reply), [appended]);
        assert!(matches!(polled(sending), Poll::Ready(Some(Ok(_)))), "its producer reads the refusal");
    }
}

#[test]
fn nothing_is_taken_for_others_or_while_nothing_can_be_sent() {
    let piggyback = open();
    let (ann, bob) = (name("ann"), name("bob"));
    assert!(matches!(polled(pin!(piggyback.send(&bob, write))), Poll::Ready(None)));
    piggyback.dismiss(&ann);
    assert!(matches!(polled(pin!(piggyback.send(&ann, write))), Poll::Ready(None)));
    piggyback.welcome(&ann);
    let mut waiting = pin!(piggyback.send(&ann, write));
    assert!(polled(waiting.as_mut()).is_pending());
    piggyback.close();
    assert!(matches!(polled(waiting), Poll::Ready(None)), "it is the producer's again");
    assert!(matches!(polled(pin!(piggyback.send(&ann, write))), Poll::Ready(None)));
    let mut pipeline = Commands::default();
    assert!(piggyback.take(&mut pipeline).is_empty() && pipeline.is_empty(), "and will not be sent here");
}

#[test]
fn so_much_may_wait_and_no_more() {
    let piggyback = open();
    let ann = name("ann");
    let mut waiting: Vec<_> = (0..WAITING_MAX).map(|_| Box::pin(piggyback.send(&ann, write))).collect();
    assert!(waiting.iter_mut().all(|sending| polled(sending.as_mut()).is_pending()));
    assert!(matches!(polled(pin!(piggyback.send(&ann, write))), Poll::Ready(None)));
    piggyback.take(&mut Commands::default());
    let mut large = pin!(piggyback.send(&ann, |commands| {
        commands.command(1).arg(vec![b'x'; WAITING_BYTES_MAX]);
    }));
    assert!(polled(large.as_mut()).is_pending());
    assert!(matches!(polled(pin!(piggyback.send(&ann, write))), Poll::Ready(None)));
}

#[test]
fn who_was_sent_and_lost_learns_that_nobody_knows() {
    let piggyback = open();
    let ann = name("ann");
    let (mut lost, mut dropped) = (pin!(piggyback.send(&ann, write)), pin!(piggyback.send(&ann, write)));
    assert!(polled(lost.as_mut()).is_pending() && polled(dropped.as_mut()).is_pending());
    let mut riders = piggyback.take(&mut Commands::default());
    riders[0].lose("late");
    // Its reply comes later: it is not the next one's.
    assert_eq!(complete(riders.drain(..1).collect(), b"$3\r\n1-0\r\n"), [true]);
    drop(riders);
    for sending in [polled(lost), polled(dropped)] {
        assert!(matches!(sending, Poll::Ready(Some(Err(StoreError::OutcomeUnknown(_))))));
    }
}
