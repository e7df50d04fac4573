//! From the session machine's commands about topics to Redis's, and back.

use homing_protocol::session::{Command, Follows, Reply};

use super::pipeline::{Identity, Target, after, next};
use crate::store::replies::{self, Value};
use crate::store::resp::Commands;
use crate::store::topics::{self, FollowRequest};
use crate::store::{Key, KeySpace, StoreError};

/// Appends a command; those that are none of topics append nothing.
pub(super) fn encode(
    pipeline: &mut Commands,
    keys: &KeySpace,
    identity: &Identity,
    Target { user, device }: Target<'_>,
    command: &Command,
) {
    match command {
        Command::LoadFollows { begin } => {
            pipeline.command(2).arg("HGETALL").parts(&keys.parts(Key::Topics(user)));
            if *begin {
                pipeline.command(3).arg("HGET").parts(&keys.parts(Key::Devices(user))).arg(device.as_str());
            }
        }
        Command::LoadCursor { topic, rewound } => {
            let member = KeySpace::cursor_member(user, device);
            pipeline.command(3).arg("ZSCORE").arg(keys.name(Key::Cursors(topic))).arg(member);
            encode_trimmed(pipeline, &keys.name(Key::TopicMeta(topic)));
            if *rewound {
                pipeline.command(3).arg("XINFO").arg("STREAM").arg(keys.name(Key::Log(topic)));
            }
        }
        Command::ReadTopic { topic, after: position, count } => {
            let mut read = pipeline.command(6);
            read.arg("XRANGE").arg(keys.name(Key::Log(topic))).arg(after(*position)).arg("+");
            read.arg("COUNT").number(u64::from((*count).max(1)));
            drop(read);
            encode_trimmed(pipeline, &keys.name(Key::TopicMeta(topic)));
        }
        Command::RereadTopic { topic, ids } => {
            let log = keys.name(Key::Log(topic));
            for id in ids {
                pipeline.command(4).arg("XRANGE").arg(&log).id(*id).id(*id);
            }
        }
        Command::Follow { topics, follow, .. } => {
            let (follow, unfollow) = if *follow { (topics.as_slice(), &[][..]) } else { (&[][..], topics.as_slice()) };
            let (owner, limit) = (identity.owner.as_str(), identity.topics_per_user);
            let request = FollowRequest { user, follow, unfollow, replace: false, owner, limit };
            pipeline.add(&topics::follow(keys, request));
        }
        _ => {}
    }
}

/// Asked after the log: a trim in between is then known, and what it took counted as missed.
pub(super) fn encode_trimmed(pipeline: &mut Commands, meta: &str) {
    pipeline.command(3).arg("HGET").arg(meta).arg("trimmed");
}

/// Makes the reply of a command about topics out of Redis's replies; `None` if the command is no such.
pub(super) fn decode<'a>(
    command: &Command,
    values: &mut impl Iterator<Item = Value<'a>>,
) -> Result<Option<Reply<&'a [u8]>>, StoreError> {
    Ok(Some(match command {
        Command::LoadFollows { begin } => {
            let topics = topics::followed_topics(next(values))?;
            let begin = begin.then(|| topics::begin(next(values))).transpose()?;
            Reply::FollowsLoaded(Box::new(Follows { topics, begin }))
        }
        Command::LoadCursor { rewound, .. } => {
            let at = topics::cursor(next(values))?;
            let trimmed = topics::optional_id(next(values))?;
            let end = rewound.then(|| topics::head(next(values))).transpose()?;
            Reply::CursorLoaded { at, trimmed, end }
        }
        Command::ReadTopic { .. } => {
            let entries = replies::entries(next(values))?;
            Reply::TopicRead { entries, trimmed: topics::optional_id(next(values))? }
        }
        Command::RereadTopic { ids, .. } => {
            let mut entries = Vec::with_capacity(ids.len());
            for _ in ids {
                entries.extend(replies::entries(next(values))?);
            }
            Reply::TopicReread(entries)
        }
        Command::Follow { .. } => Reply::Followed(topics::followed(next(values))?),
        _ => return Ok(None),
    }))
}
