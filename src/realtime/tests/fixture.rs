//! A world around a session: a map, users with sides, keys; and a session whose actions are read as sentences.

use std::collections::HashMap;
use std::time::Duration;

use crate::identify::keyring::Role;
use crate::identify::{Identity, User};
use crate::realtime::Settings;
use crate::realtime::session::{Action, Frame, Ground, Holder, Session, Version};
use crate::rewrite::schema::{Entry, SchemaMap};
use crate::side::Side;

/// The world of these tests: `u:NAME` is NAME's token, `old-anon`, `new-anon`, `old-service` and `new-service` are the keys.
pub(super) struct World {
    pub(super) map: SchemaMap,
    pub(super) settings: Settings,
    pub(super) users: HashMap<String, Side>,
    pub(super) anonymous: Side,
    pub(super) exchange: bool,
}

pub(super) fn map() -> SchemaMap {
    let entry = |old: &str, schema: &str, name: Option<&str>| Entry {
        old: old.to_owned(),
        schema: schema.to_owned(),
        name: name.map(str::to_owned),
        canonical: old == "keys",
    };
    SchemaMap::build(
        "public",
        &[
            entry("memory_entries", "security_service", None),
            entry("vendor_api_keys", "vendors", Some("api_keys")),
            entry("invoices", "billing", None),
            entry("keys", "vendors", Some("merged")),
            entry("other_keys", "vendors", Some("merged")),
            entry("smart_*", "intelligence", None),
        ],
        &[],
    )
    .unwrap()
}

pub(super) fn world() -> World {
    let side = |name: &str, side| (name.to_owned(), side);
    World {
        map: map(),
        settings: Settings {
            rooms: Side::Old,
            identify_timeout: Duration::from_secs(1),
            send_timeout: Duration::from_secs(1),
            channels: 4,
            bindings: 6,
            join_bytes: 16 * 1024,
        },
        users: [side("ada", Side::New), side("bob", Side::Old), side("eve", Side::New)].into(),
        anonymous: Side::Old,
        exchange: false,
    }
}

impl Ground for World {
    fn holder(&mut self, token: &str) -> Holder {
        match (token, token.strip_prefix("u:")) {
            (_, Some(name)) => {
                let name = name.split('@').next().unwrap();
                Holder::Token(Identity::User(User::plain(name)))
            }
            ("old-anon" | "new-anon", _) => Holder::Key(Role::Anon),
            ("old-service" | "new-service", _) => Holder::Key(Role::Service),
            _ => Holder::Nobody,
        }
    }

    fn side_of(&mut self, identity: &Identity) -> Side {
        match identity {
            Identity::User(user) => self.users.get(user.key()).copied().unwrap_or(Side::Old),
            Identity::Service => Side::Old,
            Identity::Anonymous => self.anonymous,
        }
    }

    fn rooms(&self) -> Side {
        self.settings.rooms
    }

    fn say_token(&mut self, token: &str, side: Side) -> Option<String> {
        if let Some(role) = token.strip_prefix("old-").or_else(|| token.strip_prefix("new-")) {
            return Some(format!("{side}-{role}"));
        }
        (self.exchange && token.starts_with("u:")).then(|| format!("{token}@{side}"))
    }

    fn map(&self) -> &SchemaMap {
        &self.map
    }

    fn settings(&self) -> &Settings {
        &self.settings
    }
}

/// A session and its world.
pub(super) struct Socket {
    pub(super) session: Session,
    pub(super) world: World,
}

pub(super) fn socket(version: Version) -> Socket {
    Socket { session: Session::new(version), world: world() }
}

impl Socket {
    pub(super) fn with(mut self, change: impl FnOnce(&mut World)) -> Self {
        change(&mut self.world);
        self
    }

    /// What is done when the client says this.
    pub(super) fn client(&mut self, text: &str) -> Vec<String> {
        let mut actions = Vec::new();
        self.session.from_client(Frame::Text(text.into()), &mut self.world, &mut actions);
        actions.iter().map(shown).collect()
    }

    /// What is done when a side says this.
    pub(super) fn side(&mut self, side: Side, text: &str) -> Vec<String> {
        let mut actions = Vec::new();
        self.session.from_side(side, Frame::Text(text.into()), &mut self.world, &mut actions);
        actions.iter().map(shown).collect()
    }

    pub(super) fn old_says(&mut self, text: &str) -> Vec<String> {
        self.side(Side::Old, text)
    }

    pub(super) fn new_says(&mut self, text: &str) -> Vec<String> {
        self.side(Side::New, text)
    }
}

/// `open new`, `old < frame`, `client < frame`, `shut new`, `close 1012`.
pub(super) fn shown(action: &Action) -> String {
    let text = |frame: &Frame| match frame {
        Frame::Text(text) => text.to_string(),
        Frame::Binary(bytes) => format!("{bytes:?}"),
    };
    match action {
        Action::Open(side) => format!("open {side}"),
        Action::ToSide(side, frame) => format!("{side} < {}", text(frame)),
        Action::ToClient(frame) => format!("client < {}", text(frame)),
        Action::Shut(side) => format!("shut {side}"),
        Action::Close { code, .. } => format!("close {code}"),
    }
}
