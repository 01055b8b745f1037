//! The requests, answers and settings that are measured.

use std::collections::BTreeMap;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use cutover::config::{self, live::Sources};
use cutover::decide::percentage::Percentage;
use cutover::http1::field;
use cutover::rewrite::schema::{Entry, SchemaMap};
use cutover::secret::Secret;
use cutover::side::{Pair, Side};
use cutover::snapshot::Snapshot;
use cutover::tokens::key::SigningKey;
use cutover::tokens::{self, Mode, Project};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Uri};

pub(crate) const USER: &str = "5d1c3f0e-7d0e-4c35-9a53-0c9e2e6f1b11";
/// Seconds since 1970.
pub(crate) const NOW: u64 = 1_800_000_000;
const SECRETS: Pair<&str> = Pair {
    old: "the old secret, at least thirty-two bytes",
    new: "the new secret, at least thirty-two bytes",
};

/// Settings with this percentage, this many tables and this many pins (of users who don't ask).
pub(crate) fn settings(percentage: u8, tables: usize, pins: usize) -> Snapshot {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/instructions/settings.toml");
    let sources = Sources { file: Some(file), environment: BTreeMap::new() };
    let mut snapshot = config::check(&sources).unwrap().snapshot;
    let entry = |old: String, schema: &str, name| Entry {
        old,
        schema: schema.to_owned(),
        name,
        canonical: false,
    };
    let own = entry("memory_entries".to_owned(), "security_service", None);
    let others = (1..tables)
        .map(|i| entry(format!("table_{i}"), "security_service", Some(format!("renamed_{i}"))));
    let entries: Vec<Entry> = std::iter::once(own).chain(others).collect();
    snapshot.rewrite.map = SchemaMap::build("public", &entries, &[]).unwrap();
    snapshot.decide.percentage = Percentage::from_whole(percentage).unwrap();
    snapshot.decide.pins =
        (0..pins).map(|n| (format!("{n:08}{}", &USER[8..]), Side::New)).collect();
    snapshot
}

/// The claims of the `n`th token of the user, as Supabase issues them.
fn claims(n: usize) -> String {
    serde_json::json!({
        "iss": "https://old.project.test/auth/v1", "sub": USER, "aud": "authenticated", "exp": 2_767_225_600_u64,
        "iat": 1_767_225_600, "email": "user.5d1c3f0e@example.test", "phone": "",
        "app_metadata": {"provider": "email", "providers": ["email"]},
        "user_metadata": {"email": "user.5d1c3f0e@example.test", "email_verified": true, "phone_verified": false,
                          "sub": "not-3f0e-7d0e-4c35-9a53-0c9e2e6f1b11"},
        "role": "authenticated", "aal": "aal1", "amr": [{"method": "password", "timestamp": 1_767_225_600}],
        "session_id": format!("cfb333c4-aaeb-5736-9d89-{n:012}"), "is_anonymous": false
    })
    .to_string()
}

/// The `n`th token of the user; its signature is none.
pub(crate) fn token(n: usize) -> String {
    let head = r#"{"alg":"HS256","kid":"benchKid01234567","typ":"JWT"}"#;
    let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
    format!("{}.{}.{n:043}", part(head), part(&claims(n)))
}

/// The same with a signature of the old project.
pub(crate) fn signed(n: usize) -> String {
    SigningKey::legacy(SECRETS.old).sign(claims(n).as_bytes()).unwrap()
}

/// The settings under which that is signed again for new.
pub(crate) fn exchanged() -> tokens::Settings {
    let project = |side: Side| {
        let issuer = format!("https://{side}.project.test/auth/v1");
        Project::new(Some(&Secret::new(SECRETS[side])), None, &issuer, "").unwrap()
    };
    tokens::Settings {
        mode: Mode::Exchange,
        projects: Pair::from_fn(project),
        ..tokens::Settings::default()
    }
}

/// The bench's request as it comes.
pub(crate) fn head(token: &str) -> String {
    text("/rest/v1/memory_entries?select=*&order=created_at.desc&limit=20", token)
}

fn text(target: &str, token: &str) -> String {
    let file = include_str!("settings.toml");
    let apikey = file.split('"').find(|text| text.starts_with("eyJ")).unwrap();
    format!(
        "GET {target} HTTP/1.1\r\nHost: api.example.test\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64) \
         AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0 Safari/537.36\r\nAccept: */*\r\n\
         Accept-Language: en-GB,en;q=0.9\r\napikey: {apikey}\r\nX-Client-Info: supabase-js-web/2.47.10\r\n\
         Origin: https://app.example.test\r\nReferer: https://app.example.test/\r\nAuthorization: Bearer {token}\r\n\
         X-User-Id: {USER}\r\nAccept-Profile: public\r\n\r\n"
    )
}

/// The bench's request, parsed.
pub(crate) fn get(token: &str) -> Request<()> {
    parsed(&head(token))
}

/// A download of an object in a bucket that is a folder on new.
pub(crate) fn object(token: &str) -> Request<()> {
    parsed(&text("/storage/v1/object/authenticated/avatars/ada/portrait.png", token))
}

fn parsed(head: &str) -> Request<()> {
    let (line, rest) = head.split_once("\r\n").unwrap();
    let mut request = Request::new(());
    // As from a parser, too: a part of a buffer.
    let line = Bytes::from(line.to_owned());
    let at = "GET ".len()..line.len() - " HTTP/1.1".len();
    *request.uri_mut() = Uri::from_maybe_shared(line.slice(at)).unwrap();
    *request.headers_mut() = fields(rest);
    request
}

/// Header lines, as a parser makes them: every value is a part of one buffer.
pub(crate) fn fields(lines: &str) -> HeaderMap {
    let bytes = Bytes::from(lines.to_owned());
    let mut headers = field::map(lines.lines().count());
    for (name, value) in lines.lines().filter_map(|line| line.split_once(": ")) {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        let value = HeaderValue::from_maybe_shared(bytes.slice_ref(value_in(&bytes, lines, value)));
        headers.append(name, value.unwrap());
    }
    headers
}

/// The bytes of the buffer where this piece of the text stands.
fn value_in<'b>(bytes: &'b Bytes, text: &str, piece: &str) -> &'b [u8] {
    let at = piece.as_ptr() as usize - text.as_ptr() as usize;
    &bytes[at..at + piece.len()]
}
