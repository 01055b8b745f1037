//! The lines of a head: where their parts stand, and what is made of them. Both ends find the places in their own way; what stands there is
//! read in one.

use std::ops::Range;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use smallvec::SmallVec;

use super::names;

/// As many fields as the messages of browsers, SDKs and gateways have: so many places need no memory of their own.
const USUAL: usize = 24;

/// How many headers a message may gain on its way.
const ADDED: usize = 6;

/// The fields of a head, in their order.
pub type Fields = SmallVec<[Field; USUAL]>;

/// Where a field's parts stand in its head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    name: (u32, u32),
    value: (u32, u32),
}

impl Field {
    /// Both are parts of a head, which has far fewer bytes than its places can count.
    #[must_use]
    pub fn new(name: Range<usize>, value: Range<usize>) -> Self {
        let place = |range: Range<usize>| (range.start as u32, range.end as u32);
        Self { name: place(name), value: place(value) }
    }

    /// The name, in the letters of who sent it.
    #[must_use]
    pub const fn name(&self) -> Range<usize> {
        self.name.0 as usize..self.name.1 as usize
    }

    /// The value, without white space around it.
    #[must_use]
    pub const fn value(&self) -> Range<usize> {
        self.value.0 as usize..self.value.1 as usize
    }

    /// What stands there in a head. The value is a part of it, not a copy.
    ///
    /// # Errors
    /// It is no name, or no value.
    pub fn read(&self, head: &Bytes) -> Result<(HeaderName, HeaderValue), http::Error> {
        let name = names::name(head.get(self.name()).unwrap_or_default())?;
        Ok((name, HeaderValue::from_maybe_shared(head.slice(self.value()))?))
    }
}

/// An empty map for so many fields, and for those that will be added, so that it need not grow.
#[must_use]
pub fn map(fields: usize) -> HeaderMap {
    HeaderMap::with_capacity(fields + ADDED)
}

/// Whether a list in a field's value (RFC 9110 5.6.1) has this token, in whatever letters.
#[must_use]
pub fn lists(value: &[u8], token: &str) -> bool {
    value
        .split(|byte| *byte == b',')
        .any(|part| part.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_searched_token_by_token() {
        for (value, has) in [
            ("close", true),
            ("keep-alive, Close", true),
            (" \tCLOSE\t,x", true),
            ("closed", false),
            ("x close", false),
            ("", false),
            ("é, close", true),
        ] {
            assert_eq!(lists(value.as_bytes(), "close"), has, "{value:?}");
        }
    }

    #[test]
    fn a_field_is_read_where_it_stands() {
        let head = Bytes::from_static(b"X-Own: a b\r\nbad name: x\r\nok: \0\r\n");
        let (name, value) = Field::new(0..5, 7..10).read(&head).unwrap();
        assert_eq!((name.as_str(), value.as_bytes()), ("x-own", &b"a b"[..]));
        assert!(Field::new(12..20, 22..23).read(&head).is_err());
        assert!(Field::new(25..27, 29..30).read(&head).is_err());
    }
}
