//! Phase 5 of a WebSocket of realtime. The proxy ends it, because only its first frames say whose it is (trap 22): the handshake is
//! answered here, and each side's socket is opened when the session has something for it. What is said on it, and to whom, is
//! `realtime`'s; here are the sockets.

mod dial;
mod farewell;
mod ground;
mod handshake;
mod leg;
mod socket;
mod tokens;

use std::rc::Rc;

use http::response::Parts;

use super::body::Source;
use super::refusal::Refusal;
use super::{Asked, Caller, Path, text};
use crate::http1::incoming::OnUpgrade;
use crate::realtime::session::Session;
use crate::rewrite::headers::{OVERRIDE_SIDE, OVERRIDE_TOKEN};
use crate::route::Route;
use crate::secret::Secret;
use crate::side::Side;
use dial::Opening;
use ground::Facts;
use handshake::Accepted;
use socket::Beginning;

impl Asked {
    /// Takes the upgrade of a WebSocket of realtime. Other sockets have a side from their handshake on, and are tunnelled.
    pub(super) fn take_realtime_upgrade(&mut self) -> Option<OnUpgrade> {
        let is_realtime = self.route == Route::Realtime && {
            let mut names =
                self.route.tail(self.target.path()).split('/').filter(|s| !s.is_empty());
            names.next() == Some("websocket") && names.next().is_none()
        };
        if is_realtime { self.upgrade.take() } else { None }
    }
}

impl Path {
    /// Answers the handshake, and lets the socket begin.
    pub(super) fn open_realtime(
        &self,
        upgrade: OnUpgrade,
        asked: Asked,
        caller: Caller,
    ) -> Result<(Parts, Source), Refusal> {
        caller.keys.check(&self.snapshot.keyring)?;
        let accepted = Accepted::of(&asked.headers, asked.target.query())?;
        let asked_side = text(&asked.headers, &OVERRIDE_SIDE).and_then(Side::parse);
        let override_token = text(&asked.headers, &OVERRIDE_TOKEN).unwrap_or_default();
        let facts = Facts {
            identity: caller.identity,
            address: caller.address,
            random: self.about.random as u32,
            override_ask: asked_side.map(|side| (side, Secret::new(override_token))),
        };
        let opening = Opening {
            target: asked.target,
            headers: asked.headers,
            is_secure: self.about.public.is_secure,
            request_id: self.about.request_id.clone(),
            trace: self.about.trace,
        };
        let beginning = Beginning {
            worker: Rc::clone(&self.worker),
            client: Rc::clone(&self.client),
            opening,
            facts,
            session: Session::new(accepted.version),
        };
        tokio::task::spawn_local(beginning.run(upgrade));
        Ok((accepted.response(), Source::Own(bytes::Bytes::new())))
    }
}
