//! How a client's socket ends, and with which words. Codes are never 1000 or 1001 unless the side itself said so: some clients stay
//! away for ever after them (`supabase-wire.md` 4.6, trap 25).

use std::borrow::Cow;

use http::StatusCode;
use tungstenite::Utf8Bytes;
use tungstenite::protocol::CloseFrame;

use crate::observe::ErrorCode;

/// A message that the protocol doesn't allow (RFC 6455 7.4.1).
pub(super) const PROTOCOL: u16 = 1002;
/// A text that is not UTF-8.
pub(super) const NOT_TEXT: u16 = 1007;
/// A key that this proxy refuses, or that has no counterpart on the side.
const POLICY: u16 = 1008;
/// A message that is too large.
pub(super) const TOO_BIG: u16 = 1009;
/// Something is wrong that another try will not mend.
const INTERNAL: u16 = 1011;
/// Come back at once.
const RESTART: u16 = 1012;
/// Come back later.
const TRY_LATER: u16 = 1013;

/// The most that a control frame can hold beside the code (RFC 6455 5.5).
const LONGEST_REASON: usize = 123;

/// What is said in a close frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Farewell {
    /// The close code.
    pub(super) code: u16,
    /// Why, for whoever reads the client's log.
    pub(super) reason: Cow<'static, str>,
}

/// How a socket ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The client is told this.
    Tell(Farewell),
    /// The client said goodbye, with this.
    Closed(Option<CloseFrame>),
    /// The client is gone without a word.
    Gone,
}

impl From<Farewell> for End {
    fn from(farewell: Farewell) -> Self {
        Self::Tell(farewell)
    }
}

impl Farewell {
    pub(super) const fn new(code: u16, reason: &'static str) -> Self {
        Self { code, reason: Cow::Borrowed(reason) }
    }

    /// The user, or the rooms, have another side now.
    pub(super) const fn moved() -> Self {
        Self::new(RESTART, "the project that serves this changed: please reconnect")
    }

    /// The proxy stops.
    pub(super) const fn stopped() -> Self {
        Self::new(RESTART, "the proxy restarts: please reconnect")
    }

    /// The side's connection ended without a close frame.
    pub(super) const fn lost() -> Self {
        Self::new(RESTART, "the connection to the project was lost: please reconnect")
    }

    /// The client, or a side that it needs, takes no frame.
    pub(super) const fn too_slow() -> Self {
        Self::new(TRY_LATER, "too slow: no frame was taken in time")
    }

    /// No socket to a side. `status` is what the side answered instead of 101.
    pub(super) fn refused(code: ErrorCode, status: Option<StatusCode>) -> Self {
        let close = match (code, status) {
            (ErrorCode::HandshakeRefused, Some(status))
                if status.is_client_error() && status != StatusCode::TOO_MANY_REQUESTS =>
            {
                INTERNAL
            }
            (ErrorCode::UnknownKey | ErrorCode::NoKeyForRole, _) => POLICY,
            (ErrorCode::Malformed, _) => INTERNAL,
            _ => TRY_LATER,
        };
        let reason = match status {
            Some(status) => format!("{}: {} ({})", code.code(), code.message(), status.as_u16()),
            None => format!("{}: {}", code.code(), code.message()),
        };
        Self { code: close, reason: reason.into() }
    }

    /// The side's own goodbye. Without a code it would be 1005, which can't be sent, and which some clients take for a clean end.
    pub(super) fn of_side(frame: Option<CloseFrame>) -> Self {
        match frame {
            Some(frame) => {
                Self { code: frame.code.into(), reason: frame.reason.as_str().to_owned().into() }
            }
            None => Self::new(RESTART, "the project closed without a code: please reconnect"),
        }
    }

    /// As it goes over the wire.
    pub(super) fn frame(&self) -> CloseFrame {
        let end = (0..=LONGEST_REASON.min(self.reason.len()))
            .rev()
            .find(|end| self.reason.is_char_boundary(*end));
        let reason = self.reason.get(..end.unwrap_or_default()).unwrap_or_default();
        CloseFrame { code: self.code.into(), reason: Utf8Bytes::from(reason) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trap_25_no_goodbye_of_the_proxy_is_a_clean_one() {
        let mut ours = vec![
            Farewell::moved(),
            Farewell::stopped(),
            Farewell::lost(),
            Farewell::too_slow(),
            Farewell::of_side(None),
        ];
        for code in ErrorCode::ALL {
            ours.push(Farewell::refused(code, None));
            for status in [200, 401, 403, 404, 429, 500, 503] {
                ours.push(Farewell::refused(code, StatusCode::from_u16(status).ok()));
            }
        }
        for farewell in ours {
            assert!(
                (1008..=1013).contains(&farewell.code) && farewell.code != 1010,
                "{farewell:?}"
            );
            assert!(farewell.reason.len() <= LONGEST_REASON, "{farewell:?}");
        }
    }

    #[test]
    fn what_may_be_different_the_next_time_is_1013() {
        let of = |status| {
            Farewell::refused(ErrorCode::HandshakeRefused, StatusCode::from_u16(status).ok())
        };
        for (status, code) in
            [(401, 1011), (403, 1011), (404, 1011), (429, 1013), (500, 1013), (200, 1013)]
        {
            assert_eq!(of(status).code, code, "{status}");
        }
        assert_eq!(of(401).reason, "CUT5023: the project refused the WebSocket (401)");
        assert_eq!(Farewell::refused(ErrorCode::Unreachable, None).code, 1013);
        assert_eq!(Farewell::refused(ErrorCode::NoKeyForRole, None).code, 1008);
    }

    #[test]
    fn a_long_reason_is_cut_between_letters() {
        let farewell = Farewell { code: 4000, reason: "ä".repeat(100).into() };
        assert_eq!(farewell.frame().reason.len(), 122);
    }
}
