//! What can be said of a message, from what Redis says.

use super::*;

const PAST_MS: u64 = 1;
const NOW_MS: u64 = 1_000_000;

/// A message 5-0 in an inbox that has come to 9-0, and one device that was given everything and has nothing pending.
struct Scene<'a> {
    facts: Facts<'a>,
    record: DeviceRecord,
}

fn id(ms: u64) -> EntryId {
    EntryId { ms, seq: 0 }
}

fn plain() -> Envelope<'static> {
    Envelope { payload_bytes: 10, expiry: Expiry::Never, aim: None, receipt: false }
}

fn group(last: u64) -> (Group, EntryId) {
    let fields = ["name", "web", "last-delivered-id"].map(|text| Value::Bulk(text.as_bytes()));
    let text = format!("{last}-0");
    let parts = [&fields[..], &[Value::Bulk(text.as_bytes()), Value::Bulk(b"pending"), Value::Int(0)]].concat();
    let groups = read_groups(Value::Array(vec![Value::Array(parts)])).unwrap();
    (groups.into_values().next().unwrap(), id(last))
}

fn scene(envelope: Option<Envelope<'_>>) -> Scene<'_> {
    let facts = Facts {
        id: id(5),
        now_ms: NOW_MS,
        envelope,
        last_generated: id(9),
        groups: HashMap::from([("web".to_owned(), group(9))]),
        pending: HashSet::new(),
        receipt: HashMap::new(),
        payload_bytes_max: 100,
    };
    Scene { facts, record: DeviceRecord { start: "0-0".to_owned(), ..DeviceRecord::default() } }
}

impl Scene<'_> {
    fn undelivered(mut self) -> Self {
        self.facts.groups.insert("web".to_owned(), group(4));
        self
    }

    fn pending(mut self) -> Self {
        self.facts.pending.insert("web".to_owned());
        self
    }

    fn receipt(mut self, pairs: &[(&str, &str)]) -> Self {
        self.facts.receipt.extend(pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        self
    }

    fn dropped(mut self, count: f64) -> Self {
        self.record.dropped = count;
        self
    }

    /// A session holds it that attached at this time.
    fn owned(mut self, attached_ms: u64) -> Self {
        (self.record.owner, self.record.generation) = ("node:0.0".to_owned(), (attached_ms * 1_000).to_string());
        self
    }

    fn state(self) -> DeviceState {
        self.facts.state("web", &self.record).unwrap()
    }
}

#[test]
fn what_the_groups_tell_of_a_message_without_receipt() {
    let expired = Envelope { expiry: Expiry::At(PAST_MS), ..plain() };
    let timely = Envelope { expiry: Expiry::At(NOW_MS + 1), ..plain() };
    let connected = Envelope { expiry: Expiry::ConnectedOnly, ..plain() };
    let big = Envelope { payload_bytes: 101, ..plain() };
    let elsewhere = Envelope { aim: Some(b"phone"), ..plain() };
    for (scene, state) in [
        (scene(Some(plain())).undelivered(), DeviceState::Waiting),
        (scene(Some(expired)).undelivered(), DeviceState::Expired),
        (scene(Some(connected)).undelivered(), DeviceState::Expired),
        (scene(Some(connected)).undelivered().owned(4), DeviceState::Waiting),
        (scene(Some(connected)).undelivered().owned(6), DeviceState::Expired),
        (scene(Some(elsewhere)).undelivered(), DeviceState::Skipped),
        (scene(None).undelivered(), DeviceState::Dropped),
        (scene(Some(plain())).pending(), DeviceState::Delivered),
        (scene(Some(expired)).pending(), DeviceState::Delivered),
        (scene(None).pending(), DeviceState::Dropped),
        (scene(Some(plain())), DeviceState::Acked),
        (scene(Some(timely)), DeviceState::Acked),
        // Acked in time, or not: nothing tells.
        (scene(Some(expired)), DeviceState::Unknown),
        (scene(Some(connected)), DeviceState::Unknown),
        (scene(Some(big)), DeviceState::Dropped),
        (scene(Some(elsewhere)), DeviceState::Skipped),
        (scene(None), DeviceState::Acked),
        // It may be one of those that were dropped.
        (scene(None).dropped(1.0), DeviceState::Unknown),
    ] {
        let facts = format!("{:?} pending {:?}", scene.facts.envelope, scene.facts.pending);
        assert_eq!(scene.state(), state, "{facts}");
    }
}

#[test]
fn a_receipt_tells_what_the_groups_cannot() {
    let asks = Envelope { receipt: true, ..plain() };
    let shown = [("delivered web", "7")];
    for (scene, state) in [
        (scene(Some(asks)).pending(), DeviceState::Waiting),
        (scene(Some(asks)).pending().receipt(&shown), DeviceState::Delivered),
        // Before its XACK.
        (scene(Some(asks)).pending().receipt(&[("acked web", "8")]), DeviceState::Acked),
        (scene(None).receipt(&[("acked web", "8")]).dropped(3.0), DeviceState::Acked),
        (scene(None).receipt(&[("expired web", "8")]), DeviceState::Expired),
        (scene(None).receipt(&[("dropped web", "8")]), DeviceState::Dropped),
        // An ack would have been written down: retention took it.
        (scene(None).receipt(&shown), DeviceState::Dropped),
        (scene(None).receipt(&[("acked phone", "8"), ("aim", "phone")]), DeviceState::Skipped),
        (scene(Some(asks)), DeviceState::Unknown),
    ] {
        let facts = format!("{:?} {:?}", scene.facts.envelope, scene.facts.receipt);
        assert_eq!(scene.state(), state, "{facts}");
    }
}

#[test]
fn a_device_that_came_later_is_left_out_and_one_that_left_after_its_ack_is_not() {
    let mut scene = scene(Some(plain())).receipt(&[("acked phone", "8"), ("delivered tablet", "8")]);
    scene.record.start = "5-0".to_owned();
    let view = scene.facts.judge(vec![("web".to_owned(), scene.record)]);
    let acked = DeviceReceipt {
        device: "phone".to_owned(),
        state: DeviceState::Acked,
        delivered_at_ms: None,
        acked_at_ms: Some(8),
    };
    assert_eq!(view, MessageView { state: MessageState::Acked, receipt: true, devices: vec![acked] });
}

#[test]
fn the_whole_is_the_most_that_can_be_said_of_its_devices() {
    let facts = scene(Some(plain())).facts;
    let summary = |states: &[DeviceState]| {
        let receipts = states.iter().map(|state| facts.receipt_of(String::new(), *state));
        facts.summary(&receipts.collect::<Vec<_>>())
    };
    use DeviceState as One;
    assert_eq!(summary(&[One::Dropped, One::Waiting, One::Delivered, One::Acked]), MessageState::Acked);
    assert_eq!(summary(&[One::Dropped, One::Waiting, One::Delivered]), MessageState::Delivered);
    assert_eq!(summary(&[One::Dropped, One::Waiting]), MessageState::Accepted);
    assert_eq!(summary(&[]), MessageState::Accepted);
    assert_eq!(summary(&[One::Unknown, One::Expired]), MessageState::Unknown);
    assert_eq!(summary(&[One::Skipped, One::Expired, One::Dropped]), MessageState::Dropped);
    assert_eq!(summary(&[One::Skipped, One::Expired]), MessageState::Expired);
    assert_eq!(summary(&[One::Skipped]), MessageState::Skipped);
    assert_eq!(scene(None).facts.summary(&[]), MessageState::Unknown);
}
