//! A socket run by a script of bytes: what a fuzzer starts, and what the properties start.

use std::time::Duration;

use super::Settings;
use super::session::{Action, Frame, Ground, Holder, Session, Version};
use crate::identify::keyring::Role;
use crate::identify::{Identity, User};
use crate::rewrite::schema::{Entry, SchemaMap};
use crate::side::{Pair, Side};

/// A world in which every answer is cheap: `u:NAME` is a user's token, on the side that the length of NAME says.
struct Plain {
    map: SchemaMap,
    settings: Settings,
    anonymous: Side,
}

impl Ground for Plain {
    fn holder(&mut self, token: &str) -> Holder {
        match token.strip_prefix("u:") {
            Some(name) => Holder::Token(Identity::User(User::plain(name))),
            None if token == "anon" => Holder::Key(Role::Anon),
            None => Holder::Nobody,
        }
    }

    fn side_of(&mut self, identity: &Identity) -> Side {
        match identity {
            Identity::User(user) if user.key().len() % 2 == 1 => Side::New,
            Identity::User(_) | Identity::Service => Side::Old,
            Identity::Anonymous => self.anonymous,
        }
    }

    fn rooms(&self) -> Side {
        self.settings.rooms
    }

    fn say_token(&mut self, token: &str, side: Side) -> Option<String> {
        (side == Side::New).then(|| format!("{token}+"))
    }

    fn map(&self) -> &SchemaMap {
        &self.map
    }

    fn settings(&self) -> &Settings {
        &self.settings
    }
}

/// Runs a script: the first byte chooses the version; then each step is a byte that says who speaks, two bytes of length (little
/// endian) and a message of so many bytes.
///
/// # Errors
/// The law that was broken.
pub fn script(data: &[u8]) -> Result<(), &'static str> {
    let Some((first, mut rest)) = data.split_first() else { return Ok(()) };
    let version = if first & 1 == 1 { Version::V2 } else { Version::V1 };
    let (mut session, mut world) = (Session::new(version), plain());
    let mut open: Pair<bool> = Pair::default();
    while let [who, low, high, tail @ ..] = rest {
        let length = usize::from(u16::from_le_bytes([*low, *high])).min(tail.len());
        let (message, tail) = tail.split_at(length);
        rest = tail;
        let mut actions = Vec::new();
        let frame = match std::str::from_utf8(message) {
            Ok(text) if who & 0x80 == 0 => Frame::Text(text.into()),
            _ => Frame::Binary(message.to_vec().into()),
        };
        match who & 7 {
            0 | 3 | 4 => session.from_client(frame, &mut world, &mut actions),
            1 if open.old => session.from_side(Side::Old, frame, &mut world, &mut actions),
            2 if open.new => session.from_side(Side::New, frame, &mut world, &mut actions),
            5 => world.settings.rooms = world.settings.rooms.other(),
            6 => world.anonymous = world.anonymous.other(),
            _ => {}
        }
        for action in actions {
            follow(&mut open, &action)?;
            if matches!(action, Action::Close { .. }) {
                return Ok(());
            }
        }
        if session.channels.len() > world.settings.channels {
            return Err("more channels than allowed");
        }
        if session.has_to_move(&mut world) && !open.old && !open.new {
            return Err("nothing is open, and has to move");
        }
    }
    Ok(())
}

fn follow(open: &mut Pair<bool>, action: &Action) -> Result<(), &'static str> {
    match action {
        Action::Open(side) if open[*side] => Err("opened twice"),
        Action::Open(side) => {
            open[*side] = true;
            Ok(())
        }
        Action::ToSide(side, _) if !open[*side] => Err("said to a closed side"),
        Action::Shut(side) if !open[*side] => Err("shut twice"),
        Action::Shut(side) => {
            open[*side] = false;
            if open.old || open.new { Ok(()) } else { Err("no side is left") }
        }
        Action::ToSide(..) | Action::ToClient(_) | Action::Close { .. } => Ok(()),
    }
}

fn plain() -> Plain {
    let entry = |old: &str, schema: &str, name: Option<&str>| Entry {
        old: old.to_owned(),
        schema: schema.to_owned(),
        name: name.map(str::to_owned),
        canonical: false,
    };
    let entries = [
        entry("invoices", "billing", None),
        entry("vendor_api_keys", "vendors", Some("api_keys")),
        entry("smart_*", "intelligence", None),
    ];
    Plain {
        map: SchemaMap::build("public", &entries, &[]).unwrap_or_default(),
        settings: Settings {
            rooms: Side::Old,
            identify_timeout: Duration::from_secs(1),
            send_timeout: Duration::from_secs(1),
            channels: 3,
            bindings: 4,
            join_bytes: 16 * 1024,
        },
        anonymous: Side::Old,
    }
}
