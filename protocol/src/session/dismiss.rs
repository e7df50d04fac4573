//! Sessions that somebody else ends: replaced by a policy, kicked by an operator, or with a token that is refused now.

use super::open::{Dismissal, Terms};
use super::wire::Action;
use super::{Attach, Session};
use crate::close::CloseCode;
use crate::code::ErrorCode;

/// What a client is told whose token is refused.
const TOKEN_REFUSED: &str = "this user's tokens of that time are refused now; get a new one";

impl Session {
    /// The session of this device that has this generation was ended by somebody else.
    pub fn handle_dismissed(&mut self, generation: u64, dismissal: Dismissal, actions: &mut Vec<Action>) {
        if self.generation == 0 {
            // Whose generation that is, the reply to our attach says.
            if self.dismissal.as_ref().is_none_or(|known| known.0 < generation) {
                self.dismissal = Some(Box::new((generation, dismissal)));
            }
        } else if generation >= self.generation {
            self.dismiss(dismissal, actions);
        }
    }

    /// The record has our generation, and says that we are to end: the word of it was lost.
    pub(super) fn handle_dismissed_unheard(&mut self, dismissal: Dismissal, actions: &mut Vec<Action>) {
        if !self.is_ended() && self.attach == Attach::Done {
            actions.push(Action::Stale);
            self.dismiss(dismissal, actions);
        }
    }

    /// What was heard about the generation that the first attach has just given.
    pub(super) fn dismissal_of_attach(&mut self) -> Option<Dismissal> {
        let (generation, dismissal) = *self.dismissal.take()?;
        (generation >= self.generation).then_some(dismissal)
    }

    pub(super) fn dismiss(&mut self, dismissal: Dismissal, actions: &mut Vec<Action>) {
        match dismissal {
            Dismissal::Replaced => {
                let message = "another device of this user connected, and no more may be connected at once";
                self.refuse(ErrorCode::Replaced, message, None, CloseCode::Replaced, actions);
            }
            Dismissal::Kicked(reason) => {
                let message = if reason.is_empty() { "this session was ended by its operator" } else { &reason };
                self.refuse(ErrorCode::Kicked, message, None, CloseCode::Removed, actions);
            }
            Dismissal::TokenRefused => {
                self.refuse(ErrorCode::Unauthorized, TOKEN_REFUSED, None, CloseCode::Unauthorized, actions);
            }
        }
    }

    /// Takes over what a fresh token says, unless it is one of those that are refused.
    pub(super) fn accept_terms(&mut self, terms: Terms) -> Result<u64, (ErrorCode, String)> {
        // Later refusals end the session, so what was so at the attach is so now.
        if self.refuse_before_s > 0 && terms.issued_at_s.is_none_or(|issued_at_s| issued_at_s <= self.refuse_before_s) {
            return Err((ErrorCode::Unauthorized, TOKEN_REFUSED.to_owned()));
        }
        self.terms = terms;
        Ok(terms.expires_at_ms)
    }
}
