//! What a session asks of the world: keys, tokens, the rollout. Each answer is that of the settings of this moment.

use std::net::IpAddr;

use crate::decide::{Belongs, Question, decide};
use crate::identify::{Identity, Source, User};
use crate::path::worker::Worker;
use crate::realtime::Settings;
use crate::realtime::session::{Ground, Holder};
use crate::rewrite::schema::SchemaMap;
use crate::route::Route;
use crate::secret::Secret;
use crate::side::Side;
use crate::snapshot::Snapshot;

/// What the handshake said of its client. It holds as long as the socket.
#[derive(Debug)]
pub(super) struct Facts {
    /// Whom its headers, cookies and query name. A browser can name nobody there.
    pub(super) identity: Identity,
    pub(super) address: IpAddr,
    /// Random bits of this socket, for `rollout.anonymous = "random"`.
    pub(super) random: u32,
    /// The side that a tester asked for, and the token that makes it count.
    pub(super) override_ask: Option<(Side, Secret)>,
}

/// The world, at one moment.
#[derive(Debug)]
pub(super) struct Here<'a> {
    pub(super) facts: &'a Facts,
    pub(super) worker: &'a Worker,
    pub(super) snapshot: &'a Snapshot,
}

impl Here<'_> {
    fn decide(&self, identity: &Identity, belongs: Belongs) -> Side {
        let override_ask = self.facts.override_ask.as_ref();
        let question = Question {
            identity,
            route: Route::Realtime,
            belongs,
            domain: None,
            override_ask: override_ask.map(|(side, token)| (*side, token.expose())),
            client: self.facts.address,
            random: self.facts.random,
        };
        decide(&question, &self.snapshot.decide).side
    }
}

impl Ground for Here<'_> {
    fn holder(&mut self, token: &str) -> Holder {
        let Snapshot { keyring, decide, identify, .. } = self.snapshot;
        if let Some(role) = keyring.role(token) {
            return Holder::Key(role);
        }
        // Opaque keys are no tokens, whosever they are: the side ignores them inside frames (`supabase-wire.md` 4.5).
        if token.starts_with("sb_") {
            return Holder::Nobody;
        }
        let facts = self.worker.tokens.read(token, &decide.wanted);
        let is_service = facts.is_service_role && facts.subject.is_none();
        let names_users = identify.sources.contains(&Source::Jwt);
        match User::of_token(facts) {
            Some(user) if names_users => Holder::Token(Identity::User(user)),
            _ if is_service => Holder::Token(Identity::Service),
            _ => Holder::Nobody,
        }
    }

    fn side_of(&mut self, identity: &Identity) -> Side {
        // Where no frame names a user, the handshake may: a backend's headers do.
        let identity = match (identity, &self.facts.identity) {
            (Identity::User(_), _) => identity,
            (Identity::Service, Identity::User(_)) | (Identity::Anonymous, _) => {
                &self.facts.identity
            }
            (Identity::Service, _) => identity,
        };
        self.decide(identity, Belongs::ToRoute)
    }

    fn rooms(&self) -> Side {
        self.decide(&Identity::Anonymous, Belongs::ToOwner(self.snapshot.realtime.rooms))
    }

    fn say_token(&mut self, token: &str, side: Side) -> Option<String> {
        let keyring = &self.snapshot.keyring;
        let said = match keyring.role(token) {
            // A role that the side has no key for is not promoted to another: the side refuses what it doesn't know.
            Some(role) => keyring.key_for(side, role).map(|key| key.text.clone()),
            None => self.worker.token_now(self.snapshot, token, side),
        };
        said.filter(|said| !said.is(token)).map(|said| said.expose().to_owned())
    }

    fn map(&self) -> &SchemaMap {
        &self.snapshot.rewrite.map
    }

    fn settings(&self) -> &Settings {
        &self.snapshot.realtime
    }
}
