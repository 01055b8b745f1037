//! What must hold of any answer of PostgREST to any request: what a fuzzer starts, and what a property starts.

use http::header::{CONTENT_LOCATION, LOCATION};
use http::{HeaderMap, HeaderValue};
use serde_json::{Map, Value};

use crate::rewrite::rest::CONTENT_PROFILE;
use crate::rewrite::rest::fuzz::Request;
use crate::side::Side;

/// Texts of an error: the rest of it is not for people, and stays.
const TEXTS: [&str; 3] = ["message", "details", "hint"];

/// Reads bytes as a request (`rewrite::rest::fuzz`) and, behind it, the body of an error that a side answers with.
///
/// # Errors
/// The law that does not hold.
pub fn laws(bytes: &[u8]) -> Result<(), String> {
    let Some((request, answer)) = Request::read(bytes) else { return Ok(()) };
    for side in Side::ALL {
        let Ok((_, translated)) = request.to(side) else { continue };
        let restore = translated.restore;
        let restored = restore.body(answer.as_bytes());
        if let Some(restored) = &restored {
            texts_alone_changed(answer, restored)?;
        }
        let is_list = answer.contains("PGRST106");
        if request.is_native(side) && !is_list && restored.is_some() {
            return Err(format!("{request:?} goes as it is, and {answer} is said otherwise"));
        }
        profile(&request, &restore, &translated.profile)?;
    }
    Ok(())
}

/// Reads bytes as a request that PostgREST could understand ([`crate::rewrite::rest::fuzz::laws_of_sense`]): a location leads where it led.
///
/// # Errors
/// The law that does not hold.
pub fn laws_of_sense(bytes: &[u8]) -> Result<(), String> {
    let Some((request, _)) = Request::read(bytes) else { return Ok(()) };
    for side in Side::ALL {
        let Ok((sent, translated)) = request.to(side) else { continue };
        locations(&request, &sent, &translated.restore, side)?;
    }
    Ok(())
}

/// Whatever is said otherwise: it is an error of the same fields in the same order, and all but its texts is the same.
fn texts_alone_changed(before: &str, after: &[u8]) -> Result<(), String> {
    let read = |bytes| serde_json::from_slice::<Map<String, Value>>(bytes).ok();
    let (Some(was), Some(is)) = (read(before.as_bytes()), read(after)) else {
        return Err(format!("{before} was no error, or is none now"));
    };
    let changed = was.iter().zip(&is).find(|((was_key, was), (is_key, is))| {
        was_key != is_key || (was != is && !TEXTS.contains(&was_key.as_str()))
    });
    match changed {
        None if was.len() == is.len() => Ok(()),
        _ => Err(format!("{before} became {}", String::from_utf8_lossy(after))),
    }
}

/// A location that names what was asked for, said back, leads the side to the same again.
fn locations(
    request: &Request,
    sent: &Request,
    restore: &crate::rewrite::rest::RestRestore,
    side: Side,
) -> Result<(), String> {
    // The side writes it as an URL, where half of a percent-encoding, a bare space or a letter beyond ASCII can't be.
    let text = sent.query.iter().fold(sent.tail.clone(), |tail, query| format!("{tail}?{query}"));
    if !text.is_ascii()
        || !text.starts_with('/')
        || text.parse::<http::uri::PathAndQuery>().is_err()
    {
        return Ok(());
    }
    let Ok(value) = HeaderValue::from_str(&text) else { return Ok(()) };
    for name in [LOCATION, CONTENT_LOCATION] {
        let mut headers = HeaderMap::new();
        headers.insert(&name, value.clone());
        headers.insert("x-other", value.clone());
        restore.headers(&mut headers);
        if headers.get("x-other") != Some(&value) || headers.len() != 2 {
            return Err(format!("{headers:?}: more than the location changed"));
        }
        let said = headers.get(&name).and_then(|said| said.to_str().ok()).unwrap_or_default();
        let (tail, query) = said.split_once('?').map_or((said, None), |(t, q)| (t, Some(q)));
        let asked =
            Request { tail: tail.to_owned(), query: query.map(str::to_owned), ..request.clone() };
        match asked.to(side) {
            Ok((again, _)) if again.means(sent) => {}
            Ok((again, _)) => {
                return Err(format!(
                    "{text} is said as {said}, which is {again:?} and not {sent:?}"
                ));
            }
            Err(_) => return Err(format!("{text} is said as {said}, which is refused")),
        }
    }
    Ok(())
}

/// The profile that the side was asked for is the one that the client asked for; any other is the side's own word.
fn profile(
    request: &Request,
    restore: &crate::rewrite::rest::RestRestore,
    sent: &HeaderValue,
) -> Result<(), String> {
    let other = HeaderValue::from_static("some_other_schema");
    let public = HeaderValue::from_static("public");
    let wanted = request.profile.as_ref().unwrap_or(&public);
    for (answered, wanted) in [(sent, wanted), (&other, &other)] {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_PROFILE, answered.clone());
        restore.headers(&mut headers);
        if headers.get(CONTENT_PROFILE) != Some(wanted) {
            return Err(format!("{answered:?} is said as {headers:?}, and not as {wanted:?}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::select;
    use serde_json::json;

    use super::*;

    const WORDS: [&str; 18] = [
        "vendor_organizations",
        "organizations",
        "'vendors.api_keys'",
        "vendor_api_keys",
        "\"public.vendor_api_keys\"",
        "smart_recall_x",
        "relation ",
        " in the schema cache",
        "Could not find ",
        "Perhaps you meant ",
        "vendors",
        "public",
        "'",
        "\"",
        ", ",
        ".",
        "(",
        "\u{e9}",
    ];
    const CODES: [&str; 9] = [
        "PGRST106", "PGRST200", "PGRST201", "PGRST202", "PGRST204", "PGRST205", "42P01", "42501",
        "23505",
    ];
    const TAILS: [&str; 6] = [
        "/vendor_api_keys",
        "/api_keys",
        "/rpc/vendor_stats",
        "/rpc/stats",
        "/smart_recall_x",
        "/%6Fdd",
    ];
    const QUERIES: [&str; 6] = [
        "",
        "select=*,vendor_organizations(*)",
        "select=*,o:organizations!inner(id)&o.id=eq.1",
        "select=%2A%2Cvendor_organizations%28%2A%29",
        "id=eq.vendor_api_keys&order=id",
        "select=api_keys(organizations(*))&or=(a.eq.1,b.is.null)",
    ];

    proptest! {
        #![proptest_config(ProptestConfig { cases: 3000, ..ProptestConfig::default() })]

        #[test]
        fn the_laws_hold(
            first in any::<u8>(),
            (tail, query) in (select(TAILS.to_vec()), select(QUERIES.to_vec())),
            code in select(CODES.to_vec()),
            message in vec(select(WORDS.to_vec()), 0..8),
            hint in vec(select(WORDS.to_vec()), 0..4),
            extra in any::<bool>(),
        ) {
            let (message, hint) = (message.concat(), hint.concat());
            let mut error = json!({"code": code, "message": message, "details": [{"embedding": message}], "hint": hint});
            if extra {
                error["extra"] = json!({"vendor_api_keys": 1.50, "n": 12345678901234567890_u64});
            }
            let bytes = [&[first], format!("{tail}\n{query}\n{error}").as_bytes()].concat();
            prop_assert_eq!(laws(&bytes), Ok(()));
            prop_assert_eq!(laws_of_sense(&bytes), Ok(()));
        }

        #[test]
        fn the_laws_hold_for_garbage(bytes in vec(any::<u8>(), 0..60)) {
            prop_assert_eq!(laws(&bytes), Ok(()));
        }
    }
}
