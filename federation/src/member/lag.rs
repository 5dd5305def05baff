//! How far what is known here of linked buckets may be behind their homes.

use std::time::Duration;

use futures_util::{StreamExt, stream};
use tokio::time::{Instant, timeout_at};

use super::{Linked, Member, Seen};
use crate::peer::message::Resolve;
use crate::types::Number;

/// How long all homes together have to say what their newest numbers are.
const ASK_TIME_MAX: Duration = Duration::from_secs(2);
/// How many of them are asked at once.
const ASKED_AT_ONCE: usize = 16;

/// How far a linked bucket is known here.
#[derive(Clone, Debug)]
pub struct Lag {
    /// The bucket.
    pub linked: Linked,
    /// The newest number that was heard of.
    pub known: Number,
    /// How long ago its home said that it was the newest; none if that was before this process began.
    pub heard: Option<Duration>,
    /// The newest number now; none if its home was not asked, or did not answer at once.
    pub newest: Option<Number>,
}

impl Member {
    /// How far each linked bucket is known here.
    #[must_use]
    pub fn lags(&self) -> Vec<Lag> {
        let now = self.master.clock().boottime();
        let mut lags: Vec<_> = self.all_linked().into_iter().map(|linked| self.lag_of(linked, now)).collect();
        lags.sort_by(|a, b| a.linked.name.cmp(&b.linked.name));
        lags
    }

    fn lag_of(&self, linked: Linked, now: Duration) -> Lag {
        let seen = self.seen(linked.id).unwrap_or(Seen { number: Number::ZERO, asked: None });
        Lag { linked, known: seen.number, heard: seen.asked.map(|asked| now.saturating_sub(asked)), newest: None }
    }

    /// The same, and what the homes say now, as far as they answer at once. What is known here does not change by it:
    /// who looks at the lag does not make it smaller.
    pub async fn lags_now(&self) -> Vec<Lag> {
        let until = Instant::now() + ASK_TIME_MAX;
        let asked = stream::iter(self.lags()).map(|lag| async move {
            let question = Resolve { bucket: lag.linked.id, snapshot: None };
            let newest = timeout_at(until, self.wire_ask(lag.linked.home, &question)).await;
            Lag { newest: newest.ok().and_then(Result::ok), ..lag }
        });
        asked.buffered(ASKED_AT_ONCE).collect().await
    }
}
