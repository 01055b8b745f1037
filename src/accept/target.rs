//! Request targets: the few characters that clients send bare although they have to be percent-encoded, and the targets that
//! can't be understood at all. Pure.

use http::Uri;

/// The longest target that [`Uri`] can hold; a longer one is answered like a head that is too large.
pub const LONGEST: usize = u16::MAX as usize - 1;

/// A target that is no target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a request target that is no URL path")]
pub struct NoTarget;

/// Bytes that may stand in both path and query, so that most targets need no second look.
const USUAL: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0x21;
    while byte < 0x7f {
        table[byte] = !matches!(
            byte as u8,
            b'"' | b'#' | b'<' | b'>' | b'`' | b'{' | b'}' | b'\\' | b'^' | b'|'
        );
        byte += 1;
    }
    table
};

/// Says whether the parser will take a target, and how: `Ok(None)` as it is, `Ok(Some(_))` with these bytes in its place.
///
/// `"`, `<`, `>` and the backtick have to be encoded in a URL; gateways let them through bare all the same (`select="my col"` by
/// hand), and encoded they mean the same. The parser would refuse them, so they are encoded here, and nothing else is touched.
///
/// # Errors
/// [`NoTarget`]: control characters, bytes that are no UTF-8, or no path.
pub fn look(target: &[u8]) -> Result<Option<Vec<u8>>, NoTarget> {
    if target.len() > LONGEST
        || (target.first() == Some(&b'/') && target.iter().all(|byte| USUAL[usize::from(*byte)]))
    {
        return Ok(None);
    }
    if Uri::try_from(target).is_ok() {
        return Ok(None);
    }
    let encoded = encode(target);
    match Uri::try_from(encoded.as_slice()) {
        Ok(_) => Ok(Some(encoded)),
        Err(_) => Err(NoTarget),
    }
}

fn encode(target: &[u8]) -> Vec<u8> {
    let mut encoded = Vec::with_capacity(target.len() + 16);
    for byte in target {
        match byte {
            b'"' => encoded.extend_from_slice(b"%22"),
            b'<' => encoded.extend_from_slice(b"%3C"),
            b'>' => encoded.extend_from_slice(b"%3E"),
            b'`' => encoded.extend_from_slice(b"%60"),
            byte => encoded.push(*byte),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn most_targets_pass_as_they_are() {
        for target in [
            "/",
            "/a?b=c",
            "/a%2Fb?c=%2C+d&e",
            "/a/{x}/\"y\"",
            "/a?b={1}|2^3",
            "http://host/a?b",
            "*",
            "/ä?ö=€",
        ] {
            assert_eq!(look(target.as_bytes()), Ok(None), "{target}");
        }
        let long = format!("/{}", "x".repeat(LONGEST));
        assert_eq!(look(long.as_bytes()), Ok(None), "its length is for others to judge");
    }

    #[test]
    fn bare_characters_are_encoded_and_nothing_else_is() {
        for (target, want) in [
            ("/a?select=\"my%20col\",b+c", "/a?select=%22my%20col%22,b+c"),
            ("/a?b=<1>", "/a?b=%3C1%3E"),
            ("/a`b", "/a%60b"),
        ] {
            assert_eq!(look(target.as_bytes()), Ok(Some(want.as_bytes().to_vec())), "{target}");
        }
    }

    #[test]
    fn what_is_no_target_is_refused() {
        for target in [&b"/a\x01"[..], b"/a\x7f", b"/\xff\xfe", b"", b"http://", b"/a?\x00"] {
            assert_eq!(look(target), Err(NoTarget), "{target:?}");
        }
    }

    proptest! {
        #[test]
        fn the_parser_takes_what_passes_here(target in prop::collection::vec(any::<u8>(), 0..40)) {
            match look(&target) {
                Ok(None) => prop_assert!(Uri::try_from(target.as_slice()).is_ok()),
                Ok(Some(encoded)) => prop_assert!(Uri::try_from(encoded.as_slice()).is_ok()),
                Err(NoTarget) => prop_assert!(Uri::try_from(target.as_slice()).is_err()),
            }
        }

        #[test]
        fn the_quick_look_agrees_with_the_parser(target in "/[!-~]{0,40}") {
            if look(target.as_bytes()) == Ok(None) {
                prop_assert!(Uri::try_from(target.as_str()).is_ok());
            }
        }
    }
}
