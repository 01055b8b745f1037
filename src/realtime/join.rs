//! The payload of `phx_join`: whose it is, what it asks for, and how each leg of the channel says it.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::bindings::{self, Binding, Upstream};
use super::frame::{Edits, quoted, unquoted};
use super::reply;
use super::session::Ground;
use crate::side::Side;

/// What a leg is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// Everything that the channel is.
    Whole,
    /// Database changes only.
    Changes,
    /// Broadcast and presence only.
    Rooms,
}

/// The payload of a join. A payload that says nothing we know is empty.
#[derive(Clone, Copy, Default, Deserialize)]
pub(super) struct Join<'a> {
    #[serde(borrow, default)]
    config: Option<&'a RawValue>,
    #[serde(borrow, default)]
    access_token: Option<&'a RawValue>,
    #[serde(borrow, default)]
    user_token: Option<&'a RawValue>,
}

#[derive(Default, Deserialize)]
struct Config<'a> {
    #[serde(borrow, default)]
    postgres_changes: Option<&'a RawValue>,
    #[serde(borrow, default)]
    broadcast: Option<&'a RawValue>,
    #[serde(borrow, default)]
    presence: Option<&'a RawValue>,
}

impl<'a> Join<'a> {
    /// Reads a payload.
    pub(super) fn read(payload: Option<&'a RawValue>) -> Self {
        payload.and_then(|payload| serde_json::from_str(payload.get()).ok()).unwrap_or_default()
    }

    /// The token that the server goes by: `user_token` before `access_token`.
    pub(super) fn token(&self) -> Option<Cow<'a, str>> {
        let text = |raw: Option<&'a RawValue>| raw.and_then(unquoted);
        text(self.user_token).or_else(|| text(self.access_token))
    }

    /// All tokens in it.
    pub(super) fn tokens(&self) -> Vec<String> {
        let texts = [self.user_token, self.access_token].into_iter().flatten().filter_map(unquoted);
        texts.map(Cow::into_owned).collect()
    }

    /// Whether it is a join of the old API, whose topic says what it asks for.
    pub(super) const fn is_old_api(&self) -> bool {
        self.config.is_none()
    }

    /// What it asks for; nothing when there is no list. The reason of a refusal when it is too much, or not to be understood: the
    /// server answers a binding that is not an object with an error as well.
    pub(super) fn bindings(&self, limit: usize) -> Result<Vec<Binding>, &'static str> {
        let list = self.config().postgres_changes.map_or("[]", RawValue::get);
        let list: Vec<&RawValue> = serde_json::from_str(list).unwrap_or_default();
        if list.len() > limit {
            return Err(reply::TOO_MANY_BINDINGS);
        }
        bindings::read(&list).ok_or(reply::NOT_A_BINDING)
    }

    /// The payload of a join of ours: the client's, with a later token where there is one.
    pub(super) fn again(
        payload: Option<&'a RawValue>,
        part: Part,
        upstream: &[Upstream],
        token: Option<&str>,
        side: Side,
        ground: &mut dyn Ground,
    ) -> String {
        let text = payload.map_or("{}", RawValue::get);
        let join = Self::read(payload);
        let mut edits = Edits::of(text);
        join.say(part, upstream, token, side, ground, &mut edits);
        let said = edits.apply().unwrap_or_else(|| text.to_owned());
        let has_place = join.access_token.is_some() || join.user_token.is_some();
        let (Some(token), false) = (token, has_place) else { return said };
        let token = ground.say_token(token, side).unwrap_or_else(|| token.to_owned());
        match said.strip_prefix('{').map(str::trim_start) {
            Some("}") => format!(r#"{{"access_token":{}}}"#, quoted(&token)),
            Some(rest) => format!(r#"{{"access_token":{},{rest}"#, quoted(&token)),
            None => said,
        }
    }

    fn config(&self) -> Config<'a> {
        self.config.and_then(|config| serde_json::from_str(config.get()).ok()).unwrap_or_default()
    }

    /// Says the join to a side: its tokens, and the part of it that this leg is for. `token` is a later one than the join's.
    pub(super) fn say(
        &self,
        part: Part,
        upstream: &[Upstream],
        token: Option<&str>,
        side: Side,
        ground: &mut dyn Ground,
        edits: &mut Edits<'_>,
    ) {
        for raw in [self.access_token, self.user_token].into_iter().flatten() {
            say_token(raw, token, side, ground, edits);
        }
        let config = self.config();
        if let Some(list) = config.postgres_changes {
            let said = match part {
                Part::Rooms => "[]".to_owned(),
                Part::Whole | Part::Changes => said(list, upstream),
            };
            edits.replace(list, said);
        }
        if part == Part::Changes {
            // The room itself is on the other side: on this one nothing of it may be heard or seen.
            if let Some(broadcast) = config.broadcast {
                edits.replace(broadcast, r#"{"ack":false,"self":false}"#.to_owned());
            }
            if let Some(presence) = config.presence {
                edits.replace(presence, r#"{"key":"","enabled":false}"#.to_owned());
            }
        }
    }
}

/// The list of bindings in the side's words; as it was written where they are the client's.
fn said(list: &RawValue, upstream: &[Upstream]) -> String {
    let written: Vec<&RawValue> = serde_json::from_str(list.get()).unwrap_or_default();
    let same = written.iter().map(|raw| raw.get()).eq(upstream.iter().map(|one| &*one.text));
    if same {
        return list.get().to_owned();
    }
    let texts: Vec<&str> = upstream.iter().map(|one| &*one.text).collect();
    format!("[{}]", texts.join(","))
}

/// The payload of an `access_token` event.
#[derive(Deserialize)]
struct TokenEvent<'a> {
    #[serde(borrow, default)]
    access_token: Option<&'a RawValue>,
}

/// The token of an `access_token` event.
pub(super) fn event_token<'a>(payload: Option<&'a RawValue>) -> Option<&'a RawValue> {
    let event: TokenEvent<'a> = serde_json::from_str(payload?.get()).ok()?;
    event.access_token
}

/// Puts a token in the place of `raw` as the side accepts it: `later`, or the one that is there.
pub(super) fn say_token(
    raw: &RawValue,
    later: Option<&str>,
    side: Side,
    ground: &mut dyn Ground,
    edits: &mut Edits<'_>,
) {
    let written = unquoted(raw);
    let Some(token) = later.or(written.as_deref()) else { return };
    let said = ground.say_token(token, side);
    if let Some(said) = said.as_deref().or(later) {
        edits.replace(raw, quoted(said));
    }
}
