//! Which requests are served at all. Pure.

use http::Method;

use crate::route::Route;

/// Why a request is not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotServed {
    /// The path has `.` or `..` segments, plain or percent-encoded.
    #[error("the path has dot segments")]
    DotSegments,
    /// The path belongs to no service.
    #[error("no service has this path")]
    UnknownPath,
    /// `CONNECT` or `TRACE`: neither has a use here, and both have been used against proxies.
    #[error("this method is not served")]
    Method,
}

/// Finds the route of a request.
///
/// # Errors
/// [`NotServed`]; the default is to deny.
pub fn route(method: &Method, path: &str) -> Result<Route, NotServed> {
    if matches!(*method, Method::CONNECT | Method::TRACE) {
        return Err(NotServed::Method);
    }
    if has_dot_segments(path) {
        return Err(NotServed::DotSegments);
    }
    Route::of(path).ok_or(NotServed::UnknownPath)
}

/// Whether any segment is `.` or `..` for anyone who may look at the path after us: encoded dots count, and so do encoded
/// slashes and backslashes as borders. An object's name may well hold `%2F`; it has no honest reason to hold `%2F..%2F`.
#[must_use]
pub fn has_dot_segments(path: &str) -> bool {
    if path.starts_with('/')
        && !path.contains("/.")
        && memchr::memchr2(b'%', b'\\', path.as_bytes()).is_none()
    {
        return false;
    }
    let mut rest = path.as_bytes();
    let mut dots = 0_usize;
    let mut others = false;
    while let Some((byte, behind)) = next_byte(rest) {
        rest = behind;
        match byte {
            b'/' | b'\\' => {
                if !others && matches!(dots, 1 | 2) {
                    return true;
                }
                (dots, others) = (0, false);
            }
            b'.' => dots += 1,
            _ => others = true,
        }
    }
    !others && matches!(dots, 1 | 2)
}

/// The first byte, percent-decoded, and what is behind it.
fn next_byte(bytes: &[u8]) -> Option<(u8, &[u8])> {
    let digit = |at: usize| bytes.get(at).and_then(|byte| char::from(*byte).to_digit(16));
    match (bytes.first()?, digit(1), digit(2)) {
        (b'%', Some(high), Some(low)) => Some(((high * 16 + low) as u8, bytes.get(3..)?)),
        (byte, _, _) => Some((*byte, bytes.get(1..)?)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn dot_segments_are_found_however_they_are_written() {
        for path in [
            "/rest/v1/../auth",
            "/rest/v1/.",
            "/rest/v1/..",
            "/./rest/v1/x",
            "/rest/v1/%2e%2e/x",
            "/rest/v1/%2E./x",
            "/rest/v1/.%2e",
            "/storage/v1/object/b/a%2f..%2fc",
            "/storage/v1/object/b/a%5c..%5cc",
            "/a/..\\b",
            "/a\\..\\b",
            "..",
        ] {
            assert!(has_dot_segments(path), "{path}");
            assert_eq!(route(&Method::GET, path), Err(NotServed::DotSegments), "{path}");
        }
        for path in [
            "/rest/v1/todos",
            "/storage/v1/object/b/a..b",
            "/storage/v1/object/b/...",
            "/storage/v1/object/b/.hidden",
            "/storage/v1/object/b/a%2Fb",
            "/auth/v1/.well-known/jwks.json",
            "/storage/v1/object/b/x.",
            "/a/%2e%2e%2e",
            "/a/%",
            "/a/%2",
            "/a/%zz..",
        ] {
            assert!(!has_dot_segments(path), "{path}");
        }
    }

    #[test]
    fn connect_and_trace_are_not_served() {
        for method in [Method::CONNECT, Method::TRACE] {
            assert_eq!(route(&method, "/rest/v1/x"), Err(NotServed::Method));
        }
        assert_eq!(route(&Method::GET, "/pg/x"), Err(NotServed::UnknownPath));
        assert_eq!(route(&Method::GET, "/rest/v1/x"), Ok(Route::Rest));
    }

    proptest! {
        #[test]
        fn agrees_with_decoding_everything_first(path in "(/|%2[fFeE]|%5[cC]|\\.|\\\\|a|%41|%){0,12}") {
            let decoded = percent_encoding::percent_decode_str(&path).decode_utf8_lossy().replace('\\', "/");
            let want = decoded.split('/').any(|segment| segment == "." || segment == "..");
            prop_assert_eq!(has_dot_segments(&path), want);
        }
    }
}
