//! What of a request's target may be written to a log.
//!
//! Supabase clients put keys and tokens into URLs (`supabase-wire.md`, trap 43): the realtime socket's `apikey`,
//! signed storage URLs, OAuth codes, e-mail links. A parameter is redacted by its name; anything that looks like a
//! JWT or a Supabase key is redacted wherever it stands.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

/// What stands in the place of a secret.
pub const REDACTED: &str = "[redacted]";

/// More than this many bytes of a target are never logged.
pub const MAX_BYTES: usize = 1_024;

/// Parameters whose values are secret, lower case.
const SECRET_NAMES: [&str; 25] = [
    "access_token",
    "api_key",
    "apikey",
    "auth",
    "authorization",
    "code",
    "code_challenge",
    "code_verifier",
    "confirmation_token",
    "cookie",
    "id_token",
    "jwt",
    "nonce",
    "otp",
    "password",
    "provider_refresh_token",
    "provider_token",
    "recovery_token",
    "refresh_token",
    "secret",
    "signature",
    "state",
    "token",
    "token_hash",
    "x-api-key",
];

/// Removes secrets from a path with its query, and cuts it to [`MAX_BYTES`]. Borrows when nothing has to change.
#[must_use]
pub fn redact(path_and_query: &str) -> Cow<'_, str> {
    cut(without_secrets(path_and_query))
}

/// Removes secrets from a path with its query; all the rest of it stays. Borrows when there are none.
#[must_use]
pub fn without_secrets(path_and_query: &str) -> Cow<'_, str> {
    let (path, query) = match path_and_query.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (path_and_query, None),
    };
    let clean = !path.split('/').any(looks_secret)
        && query.is_none_or(|query| !query.split('&').any(|pair| secret_value(pair).is_some()));
    if clean {
        return Cow::Borrowed(path_and_query);
    }
    let mut out = String::with_capacity(path_and_query.len());
    for (i, segment) in path.split('/').enumerate() {
        if i > 0 {
            out.push('/');
        }
        out.push_str(if looks_secret(segment) { REDACTED } else { segment });
    }
    for (i, pair) in query.into_iter().flat_map(|query| query.split('&')).enumerate() {
        out.push(if i == 0 { '?' } else { '&' });
        match secret_value(pair) {
            Some(kept) => out.extend([kept, REDACTED]),
            None => out.push_str(pair),
        }
    }
    Cow::Owned(out)
}

/// What may be shown of a parameter whose value is secret (`name=`); `None` when all of it may.
fn secret_value(pair: &str) -> Option<&str> {
    let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
    if looks_secret(name) {
        return Some("");
    }
    let decoded_name = percent_decode_str(name).decode_utf8_lossy();
    let secret = is_secret_name(&decoded_name)
        || is_secret_tree(&decoded_name, value)
        || looks_secret(value);
    (secret && !value.is_empty()).then(|| &pair[..=name.len()])
}

/// A parameter's own name, or the last part of PostgREST's `embed.column`.
fn is_secret_name(name: &str) -> bool {
    let last = name.trim().rsplit('.').next().unwrap_or_default();
    SECRET_NAMES.iter().any(|secret| last.eq_ignore_ascii_case(secret))
}

/// PostgREST's `and=(token.eq.x,…)`: a filter on a secret column inside a logic tree.
fn is_secret_tree(name: &str, value: &str) -> bool {
    let last = name.rsplit('.').next().unwrap_or_default();
    (last == "and" || last == "or") && {
        let value = percent_decode_str(value).decode_utf8_lossy();
        value.split(['(', ')', ',', '.']).any(is_secret_name)
    }
}

/// A JWT (`eyJ…`) or a Supabase key (`sb_secret_…`), at the start of a word.
fn looks_secret(text: &str) -> bool {
    const MARKS: [&str; 3] = ["eyJ", "sb_secret_", "sb_publishable_"];
    // Text that is shorter than any secret, and without an escape that could hide a mark, needs no decoding.
    if text.len() < 12 {
        return false;
    }
    let decoded = percent_decode_str(text).decode_utf8_lossy();
    MARKS.iter().any(|mark| {
        decoded.match_indices(mark).any(|(at, _)| {
            let starts_word = !decoded[..at].ends_with(|c: char| c.is_ascii_alphanumeric());
            starts_word && decoded.len() - at >= 12
        })
    })
}

fn cut(text: Cow<'_, str>) -> Cow<'_, str> {
    if text.len() <= MAX_BYTES {
        return text;
    }
    Cow::Owned(format!("{}…", up_to(&text, MAX_BYTES)))
}

/// The longest beginning of `text` that has at most `bytes` bytes and cuts no character.
pub(super) fn up_to(text: &str, bytes: usize) -> &str {
    let end = (0..=bytes.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or(0)]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn secrets_go_and_everything_else_stays() {
        for (target, shown) in [
            ("/rest/v1/todos?select=id,title&id=eq.7", None),
            ("/rest/v1/todos", None),
            ("/rest/v1/keyJobsAndMoreOfThem?x=1", None),
            ("/?", None),
            ("", None),
            (
                "/realtime/v1/websocket?apikey=abc&vsn=1.0.0",
                Some("/realtime/v1/websocket?apikey=[redacted]&vsn=1.0.0"),
            ),
            ("/a?ApiKey=abc", Some("/a?ApiKey=[redacted]")),
            ("/a?%61pikey=abc", Some("/a?%61pikey=[redacted]")),
            (
                "/a?code=1&state=2&code_verifier=3",
                Some("/a?code=[redacted]&state=[redacted]&code_verifier=[redacted]"),
            ),
            ("/a?token=a=b?c&x=1", Some("/a?token=[redacted]&x=1")),
            (
                "/auth/v1/verify?token_hash=x&type=email",
                Some("/auth/v1/verify?token_hash=[redacted]&type=email"),
            ),
            ("/rest/v1/t?api_keys.token=eq.x", Some("/rest/v1/t?api_keys.token=[redacted]")),
            ("/rest/v1/t?or=(id.eq.1,token.eq.x)", Some("/rest/v1/t?or=[redacted]")),
            ("/rest/v1/t?or=(id.eq.1,title.eq.x)", None),
            ("/a?x=eyJhbGciOiJIUzI1NiJ9.e30.s", Some("/a?x=[redacted]")),
            ("/a?x=Bearer%20eyJhbGciOiJIUzI1NiJ9", Some("/a?x=[redacted]")),
            ("/a/eyJhbGciOiJIUzI1NiJ9/b", Some("/a/[redacted]/b")),
            (
                "/a/sb_secret_abcdef/b?y=sb%5Fpublishable_abcdef",
                Some("/a/[redacted]/b?y=[redacted]"),
            ),
            ("/a?eyJhbGciOiJIUzI1NiJ9=1", Some("/a?[redacted]")),
            ("/a?token=&x=1", None),
            ("/a?token", None),
        ] {
            assert_eq!(redact(target), shown.unwrap_or(target), "{target}");
            assert!(shown.is_some() || matches!(redact(target), Cow::Borrowed(_)), "{target}");
        }
    }

    #[test]
    fn a_long_target_is_cut_between_characters() {
        let long = format!("/{}", "ü".repeat(MAX_BYTES));
        let shown = redact(&long);
        assert!(shown.len() <= MAX_BYTES + '…'.len_utf8());
        assert!(shown.ends_with("ü…"));
    }

    #[test]
    fn the_list_of_names_is_lower_case_and_sorted() {
        assert!(SECRET_NAMES.is_sorted());
        assert!(SECRET_NAMES.iter().all(|name| name.to_ascii_lowercase() == **name));
    }

    proptest! {
        #[test]
        fn a_secret_never_gets_through(
            before in "(/[a-z]{1,5}){1,3}",
            // Never a secret's own name, such as `otp`.
            other in "o_[a-z]{1,4}=[a-z0-9.%]{0,6}",
            name in 0..SECRET_NAMES.len(),
            upper in any::<bool>(),
            secret in "Q[A-Z]{8}[A-Za-z0-9._=?/%-]{0,40}",
        ) {
            let name = SECRET_NAMES[name];
            let name = if upper { name.to_ascii_uppercase() } else { name.to_owned() };
            let target = format!("{before}?{other}&{name}={secret}&{other}");
            let shown = redact(&target);
            prop_assert!(!shown.contains(&secret), "{}", shown);
            prop_assert!(shown.starts_with(&format!("{before}?{other}&")), "{}", shown);
        }

        #[test]
        fn redacting_twice_changes_nothing_and_never_panics(target in "\\PC{0,80}") {
            let once = redact(&target).into_owned();
            prop_assert_eq!(redact(&once), once.as_str());
        }
    }
}
