//! The trace that a request belongs to (W3C Trace Context): read from the client, or begun here, and said to the side.
//!
//! Whether a trace is recorded is decided once, where it begins: a client's flag is obeyed, and a share of the traces that begin here is
//! chosen by their ids, so that every replica chooses alike.

use std::fmt;

use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};

/// W3C trace context, kept or begun.
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// What other tracing systems add to it; kept as it is, and meaningless without it (2.3.1).
pub const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// One place in one trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Context {
    /// Never 0.
    pub trace: u128,
    /// Never 0.
    pub span: u64,
    /// Whether it is recorded.
    pub is_sampled: bool,
}

/// Which of the traces that begin here are recorded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sampler {
    /// Of 10,000.
    share: u16,
}

/// The trace of a request.
#[derive(Clone, Copy, Debug)]
pub struct Trace {
    /// What the client said, where it can be read.
    pub parent: Option<Context>,
    /// What this proxy's own span is called.
    pub own: Context,
}

impl Context {
    /// Reads a `traceparent` (2.2). A later version than 00 may have more behind, which is not read.
    #[must_use]
    pub fn parse(value: &[u8]) -> Option<Self> {
        let (head, rest) = value.split_at_checked(55)?;
        let is_00 = head.starts_with(b"00");
        let ends =
            if is_00 { rest.is_empty() } else { rest.first().is_none_or(|byte| *byte == b'-') };
        if !ends || head.starts_with(b"ff") || [2, 35, 52].iter().any(|at| head[*at] != b'-') {
            return None;
        }
        hex(&head[..2])?;
        let trace = hex(&head[3..35])?;
        let span = u64::try_from(hex(&head[36..52])?).ok()?;
        let is_sampled = hex(&head[53..])? & 1 == 1;
        (trace != 0 && span != 0).then_some(Self { trace, span, is_sampled })
    }

    /// The header's value.
    #[must_use]
    pub fn header(&self) -> HeaderValue {
        // Written for nearly every request, so without the detour over formatting.
        let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
        write_hex(&mut text[3..35], self.trace);
        write_hex(&mut text[36..52], u128::from(self.span));
        write_hex(&mut text[53..], u128::from(self.is_sampled));
        HeaderValue::from_bytes(&text).unwrap_or(HeaderValue::from_static(""))
    }

    /// The trace's id as it is written.
    #[must_use]
    pub const fn trace_id(&self) -> TraceId {
        TraceId(self.trace)
    }

    /// The span's id as it is written.
    #[must_use]
    pub const fn span_id(&self) -> SpanId {
        SpanId(self.span)
    }

    /// The `n`th span below this one: another id for each `n`, without asking for new random bits (the step of SplitMix64, a bijection).
    #[must_use]
    pub const fn child(&self, n: u64) -> Self {
        let mut z = self.span.wrapping_add((n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        Self { span: if z == 0 { 1 } else { z }, ..*self }
    }
}

/// Fills the place, whose length is even, with the last hex digits of a number.
pub fn write_hex(place: &mut [u8], number: u128) {
    for (digits, byte) in place.rchunks_exact_mut(2).zip(number.to_le_bytes()) {
        digits.copy_from_slice(&HEX[usize::from(byte)]);
    }
}

/// Each byte's two digits.
const HEX: [[u8; 2]; 256] = {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut table = [[0; 2]; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = [DIGITS[byte >> 4], DIGITS[byte & 0xf]];
        byte += 1;
    }
    table
};

/// Lower-case hex digits, no more than 32 of them.
fn hex(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0, |number, digit| {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u128::from(value))
    })
}

/// 32 hex digits.
#[derive(Clone, Copy, Debug)]
pub struct TraceId(u128);

/// 16 hex digits.
#[derive(Clone, Copy, Debug)]
pub struct SpanId(u64);

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl Sampler {
    /// Records this share of the traces, in hundredths of a percent: 0 to 10,000.
    #[must_use]
    pub const fn new(hundredths: u16) -> Self {
        Self { share: hundredths }
    }

    /// Whether a trace with this id is recorded. Only the last 56 bits are sure to be random (2.2.3); whoever is in at a share is in at
    /// every larger one.
    #[must_use]
    pub const fn samples(self, trace: u128) -> bool {
        const BITS: u32 = 56;
        let random = (trace as u64) & ((1 << BITS) - 1);
        (random as u128 * 10_000) >> BITS < self.share as u128
    }
}

impl Trace {
    /// The trace of a request with this `traceparent`; `random` names what has to be named. Without a sampler nothing is recorded.
    #[must_use]
    pub fn of(traceparent: Option<&HeaderValue>, random: u128, sampler: Option<Sampler>) -> Self {
        let parent = traceparent.and_then(|value| Context::parse(value.as_bytes()));
        let trace = parent.map_or(random, |parent| parent.trace).max(1);
        let is_sampled = sampler.is_some_and(|sampler| {
            parent.map_or_else(|| sampler.samples(trace), |parent| parent.is_sampled)
        });
        let span = ((random >> 64) as u64 ^ random as u64).max(1);
        Self { parent, own: Context { trace, span, is_sampled } }
    }

    /// Says it to a side: that its spans hang below `place`. What the client said stays as it is where nothing is recorded here.
    pub fn write(&self, place: Context, headers: &mut HeaderMap) {
        if self.parent.is_none() {
            headers.remove(TRACESTATE);
        }
        if self.own.is_sampled || self.parent.is_none() {
            headers.insert(TRACEPARENT, place.header());
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_traceparent_is_read_as_the_standard_says() {
        let context = Context::parse(PARENT.as_bytes()).unwrap();
        assert_eq!(context.trace, 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736);
        assert_eq!((context.span, context.is_sampled), (0x00f0_67aa_0ba9_02b7, true));
        assert_eq!(context.header(), PARENT);
        for (value, sampled) in [
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00", Some(false)),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-02", Some(false)),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-03", Some(true)),
            ("01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", Some(true)),
            ("01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more", Some(true)),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more", None),
            ("01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01more", None),
            ("ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", None),
            ("00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01", None),
            ("00-00000000000000000000000000000000-00f067aa0ba902b7-01", None),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01", None),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0", None),
            ("00_4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", None),
            ("", None),
        ] {
            let read = Context::parse(value.as_bytes()).map(|context| context.is_sampled);
            assert_eq!(read, sampled, "{value}");
        }
    }

    #[test]
    fn the_client_decides_where_it_says_something() {
        let value = |text: &'static str| HeaderValue::from_static(text);
        let unsampled = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";
        let (all, none) = (Some(Sampler::new(10_000)), Some(Sampler::new(0)));
        for (header, sampler, want) in [
            (Some(PARENT), None, false),
            (Some(PARENT), none, true),
            (Some(PARENT), all, true),
            (Some(unsampled), all, false),
            (None, all, true),
            (None, none, false),
            (None, None, false),
            (Some("nonsense"), all, true),
        ] {
            let trace = Trace::of(header.map(value).as_ref(), 7, sampler);
            assert_eq!(trace.own.is_sampled, want, "{header:?} {sampler:?}");
            assert_eq!(trace.own.trace == 7, trace.parent.is_none());
        }
    }

    #[test]
    fn what_is_said_names_the_span_only_where_there_is_one() {
        let say = |header: Option<&'static str>, sampler| {
            let mut headers = HeaderMap::new();
            if let Some(header) = header {
                headers.insert(TRACEPARENT, HeaderValue::from_static(header));
            }
            headers.insert(TRACESTATE, HeaderValue::from_static("a=b"));
            let trace = Trace::of(headers.get(TRACEPARENT), 7, sampler);
            trace.write(trace.own, &mut headers);
            let text = |name| headers.get(name).map(|value| value.to_str().unwrap().to_owned());
            (text(TRACEPARENT).unwrap(), text(TRACESTATE))
        };
        let state = Some("a=b".to_owned());
        let all = Some(Sampler::new(10_000));
        assert_eq!(say(Some(PARENT), None), (PARENT.to_owned(), state.clone()));
        let own = "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000007-01";
        assert_eq!(say(Some(PARENT), all), (own.to_owned(), state));
        let begun = "00-00000000000000000000000000000007-0000000000000007-0";
        assert_eq!(say(None, None), (format!("{begun}0"), None));
        assert_eq!(say(None, all), (format!("{begun}1"), None));
        assert_eq!(say(Some("nonsense"), None), (format!("{begun}0"), None));
    }

    proptest! {
        #[test]
        fn reading_what_was_written_gives_the_same(trace in 1_u128.., span in 1_u64.., is_sampled: bool) {
            let context = Context { trace, span, is_sampled };
            prop_assert_eq!(Context::parse(context.header().as_bytes()), Some(context));
        }

        #[test]
        fn hex_is_what_formatting_makes_of_it(number: u128) {
            let mut text = [0; 32];
            write_hex(&mut text, number);
            prop_assert_eq!(std::str::from_utf8(&text).unwrap(), format!("{number:032x}"));
            write_hex(&mut text[30..], number);
            prop_assert_eq!(std::str::from_utf8(&text[30..]).unwrap(), format!("{:02x}", number & 0xff));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..70)) {
            prop_assert!(Context::parse(&bytes).is_none_or(|context| context.trace != 0));
        }

        #[test]
        fn a_larger_share_holds_every_smaller_one(trace: u128, a in 0_u16..=10_000, b in 0_u16..=10_000) {
            let (small, large) = (a.min(b), a.max(b));
            prop_assert!(!Sampler::new(small).samples(trace) || Sampler::new(large).samples(trace));
            prop_assert!(Sampler::new(10_000).samples(trace) && !Sampler::new(0).samples(trace));
        }

        #[test]
        fn children_have_ids_of_their_own(span in 1_u64.., n in 0_u64..8) {
            let own = Context { trace: 1, span, is_sampled: true };
            prop_assert!(own.child(n).span != 0 && own.child(n).span != own.child(n + 1).span);
        }
    }
}
