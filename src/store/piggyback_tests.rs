use std::pin::pin;
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

/// What has become of it; `Pending` if it is on its way.
fn polled(ride: Ride) -> Poll<Option<Outcome>> {
    pin!(ride.outcome()).poll(&mut Context::from_waker(Waker::noop()))
}

fn replies_of(ride: Ride) -> Vec<u8> {
    let Poll::Ready(Some(Ok(replies))) = polled(ride) else { panic!("no replies") };
    replies.bytes().to_vec()
}

/// Reads `ann`'s inbox, and can send.
fn open() -> Piggyback {
    let piggyback = Piggyback::default();
    piggyback.welcome(&name("ann"));
    piggyback.open();
    piggyback
}

fn offer(piggyback: &Piggyback, user: &str) -> Option<Ride> {
    piggyback.offer(&name(user), 10, write)
}

fn complete(riders: Vec<Rider>, replies: &[u8]) -> Vec<bool> {
    let replies = Replies::scanned(replies).unwrap();
    let mut reader = replies.reader();
    let appended = riders.into_iter().map(|mut rider| rider.complete(&mut reader)).collect();
    assert_eq!(reader.next(), None, "each took its own replies");
    appended
}

#[test]
fn what_waits_leaves_in_order_and_each_gets_its_replies() {
    let piggyback = open();
    let count = Arc::new(Count(AtomicUsize::new(0)));
    let waker = Waker::from(count.clone());
    assert!(!piggyback.poll(&Context::from_waker(&waker)));
    let first = offer(&piggyback, "ann").unwrap();
    let with_length = |commands: &mut Commands| {
        write(commands);
        commands.command(1).arg("LENGTH");
    };
    let second = piggyback.offer(&name("ann"), 10, with_length).unwrap();
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
    assert_eq!(replies_of(first), b"$3\r\n1-0\r\n");
    assert_eq!(replies_of(second), b"$3\r\n2-0\r\n:7\r\n");
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
        let ride = offer(&piggyback, "ann").unwrap();
        assert_eq!(complete(piggyback.take(&mut Commands::default()), reply), [appended]);
        assert_eq!(replies_of(ride), reply, "its producer reads the refusal");
    }
}

#[test]
fn nothing_is_taken_for_others_or_while_nothing_can_be_sent() {
    let piggyback = open();
    assert!(offer(&piggyback, "bob").is_none());
    piggyback.dismiss(&name("ann"));
    assert!(offer(&piggyback, "ann").is_none());
    piggyback.welcome(&name("ann"));
    let ride = offer(&piggyback, "ann").unwrap();
    piggyback.close();
    assert!(matches!(polled(ride), Poll::Ready(None)), "it is the producer's again");
    assert!(offer(&piggyback, "ann").is_none());
    let mut pipeline = Commands::default();
    assert!(piggyback.take(&mut pipeline).is_empty() && pipeline.is_empty(), "and will not be sent here");
}

#[test]
fn so_much_may_wait_and_no_more() {
    let piggyback = open();
    let rides: Vec<_> = std::iter::from_fn(|| offer(&piggyback, "ann")).take(2 * WAITING_MAX).collect();
    assert_eq!(rides.len(), WAITING_MAX);
    piggyback.take(&mut Commands::default());
    assert!(piggyback.offer(&name("ann"), APPEND_BYTES_MAX + 1, write).is_none(), "a large one");
    let large = |commands: &mut Commands| {
        commands.command(1).arg(vec![b'x'; APPEND_BYTES_MAX]);
    };
    let rides = std::iter::from_fn(|| piggyback.offer(&name("ann"), APPEND_BYTES_MAX, large)).take(WAITING_MAX);
    assert_eq!(rides.count(), WAITING_BYTES_MAX / APPEND_BYTES_MAX);
}

#[test]
fn who_was_sent_and_lost_learns_that_nobody_knows() {
    let piggyback = open();
    let (late, dropped) = (offer(&piggyback, "ann").unwrap(), offer(&piggyback, "ann").unwrap());
    let mut riders = piggyback.take(&mut Commands::default());
    riders[0].lose("late");
    // Its reply comes later: it is not the next one's.
    assert_eq!(complete(riders.drain(..1).collect(), b"$3\r\n1-0\r\n"), [true]);
    drop(riders);
    for ride in [late, dropped] {
        assert!(matches!(polled(ride), Poll::Ready(Some(Err(StoreError::OutcomeUnknown(_))))));
    }
}

#[test]
fn what_is_on_its_way_is_waited_for() {
    let piggyback = open();
    let ride = offer(&piggyback, "ann").unwrap();
    let mut outcome = pin!(ride.outcome());
    let mut context = Context::from_waker(Waker::noop());
    assert!(outcome.as_mut().poll(&mut context).is_pending());
    complete(piggyback.take(&mut Commands::default()), b"$3\r\n1-0\r\n");
    assert!(outcome.poll(&mut context).is_ready());
}
