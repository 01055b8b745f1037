//! Storage's answers, said in the client's words again; and what one side issued, marked with its name.

use http::header::{CONTENT_TYPE, LOCATION};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use percent_encoding::percent_decode_str;
use serde::Deserialize;

use super::headers::PublicName;
use crate::rewrite::query::encode_segment;
use crate::rewrite::storage::buckets::Words;
use crate::rewrite::storage::json::{Editor, Value};
use crate::rewrite::storage::mark::{self, Purpose};
use crate::rewrite::storage::{Answer, Elsewhere, Restore, Settings, say_cursor, say_raw};
use crate::side::Side;

/// Where signed URLs begin, the longer ones first.
const SIGNED: [&str; 3] = ["/object/upload/sign/", "/object/sign/", "/render/image/sign/"];
const UPLOADS: &str = "/upload/resumable/";

/// What a member of an answer holds.
#[derive(Clone, Copy)]
enum Field {
    /// A bucket's name.
    Bucket,
    /// An object's name.
    Name,
    /// Both, with a slash between them.
    Path,
    /// A signed URL.
    Url,
    /// A signed URL's token.
    Token,
}

impl Answer {
    const fn fields(self) -> &'static [(&'static str, Field)] {
        use Field::{Bucket, Name, Path, Token, Url};
        match self {
            Self::Signed => &[("signedURL", Url), ("signedUrl", Url)],
            Self::SignedMany => &[("path", Name), ("signedURL", Url), ("signedUrl", Url)],
            Self::SignedUpload => &[("url", Url), ("signedUrl", Url), ("token", Token)],
            Self::Stored => &[
                ("Key", Path),
                ("Id", Path),
                ("path", Path),
                ("fullPath", Path),
                ("bucket_id", Bucket),
                ("name", Name),
            ],
            Self::Moved => &[("Key", Name)],
            Self::Removed | Self::Info | Self::ListV2 => &[("bucket_id", Bucket), ("name", Name)],
            Self::Bucket | Self::Buckets => &[("id", Bucket), ("name", Bucket)],
            Self::Opaque | Self::UploadBegun => &[],
        }
    }

    /// Whether a mark is put on something in it, whatever the map says.
    const fn is_issued(self) -> bool {
        matches!(self, Self::Signed | Self::SignedMany | Self::SignedUpload)
    }
}

impl Restore {
    /// Whether an answer of some status may be given to [`Self::body`]: so only encodings that can be read are asked for.
    #[must_use]
    pub fn reads_bodies(&self, settings: &Settings) -> bool {
        self.wants(settings, StatusCode::OK) || self.words.is_some()
    }

    /// Whether an answer's body is to be read and given to [`Self::body`].
    #[must_use]
    pub fn wants_body(&self, settings: &Settings, status: StatusCode, headers: &HeaderMap) -> bool {
        let is_json = headers.get(CONTENT_TYPE).is_some_and(|kind| {
            kind.as_bytes().to_ascii_lowercase().windows(4).any(|window| window == b"json")
        });
        is_json && self.wants(settings, status)
    }

    fn wants(&self, settings: &Settings, status: StatusCode) -> bool {
        if status.as_u16() >= 400 {
            return self.words.is_some();
        }
        match self.answer {
            Answer::Buckets => self.side == Side::New && !settings.map.is_empty(),
            answer => answer.is_issued() || (self.words.is_some() && !answer.fields().is_empty()),
        }
    }

    /// The body, already decoded, in the client's words; `None` when it stays.
    #[must_use]
    pub fn body(&self, settings: &Settings, status: StatusCode, bytes: &[u8]) -> Option<Vec<u8>> {
        let (mut editor, root) = Editor::read(bytes)?;
        if status.as_u16() >= 400 {
            self.error(&mut editor, root);
            return editor.done();
        }
        match self.answer {
            Answer::Buckets => old_names(settings, &mut editor, root),
            Answer::ListV2 => self.page(settings, &mut editor, root),
            Answer::SignedMany | Answer::Removed => {
                for item in root.items() {
                    self.object(settings, &mut editor, item);
                }
            }
            _ => self.object(settings, &mut editor, root),
        }
        editor.done()
    }

    /// One object's members.
    fn object<'a>(&self, settings: &Settings, editor: &mut Editor<'a>, object: Value<'a>) {
        for (name, value) in object.members() {
            let field = self.answer.fields().iter().find(|(key, _)| *key == name);
            if let (Some((_, field)), Some(text)) = (field, value.text())
                && let Some(said) = self.field(settings, *field, &text)
            {
                editor.replace(value, &said);
            }
        }
    }

    fn field(&self, settings: &Settings, field: Field, text: &str) -> Option<String> {
        let words = self.words.as_ref();
        match field {
            Field::Bucket => words?.bucket(text).map(str::to_owned),
            Field::Name => words?.name(text),
            Field::Path => words?.path(text),
            Field::Url => Some(self.url(settings, text)),
            Field::Token => Some(mark::sign(&settings.mark_keys, Purpose::Token, self.side, text)),
        }
    }

    /// A signed URL, relative or not: its names in the client's words, its token with a mark.
    fn url(&self, settings: &Settings, url: &str) -> String {
        // An object's name may hold a question mark that nobody encoded; the token comes last.
        let (path, query) = match url.rfind("?token=").or_else(|| url.find('?')) {
            Some(at) => url.split_at(at),
            None => (url, ""),
        };
        let said = self.words.as_ref().and_then(|words| signed_path(words, path));
        let path = said.as_deref().unwrap_or(path);
        let at = ["?token=", "&token="].iter().find_map(|key| Some(query.find(key)? + key.len()));
        let Some((before, token)) = at.and_then(|at| query.split_at_checked(at)) else {
            return format!("{path}{query}");
        };
        let end = token.find(['&', '#']).unwrap_or(token.len());
        let (token, behind) = token.split_at(end);
        let token = mark::sign(&settings.mark_keys, Purpose::Token, self.side, token);
        format!("{path}{before}{token}{behind}")
    }

    /// A page of a listing.
    fn page<'a>(&self, settings: &Settings, editor: &mut Editor<'a>, root: Value<'a>) {
        let Some(words) = &self.words else { return };
        let lists = ["objects", "folders"].into_iter().filter_map(|key| root.member(key));
        for item in lists.flat_map(Value::items) {
            let text = |key: &str| item.member(key)?.text();
            // Beside a full key, a name that is not the same is the last part of it.
            match (text("key"), text("name")) {
                (Some(key), name) => {
                    let named =
                        if name.as_ref() == Some(&key) { item.member("name") } else { None };
                    for value in [item.member("key"), named].into_iter().flatten() {
                        replace(editor, value, words.name(&key));
                    }
                    if let Some((value, bucket)) = item.member("bucket_id").zip(text("bucket_id")) {
                        replace(editor, value, words.bucket(&bucket).map(str::to_owned));
                    }
                }
                (None, _) => self.object(settings, editor, item),
            }
        }
        if let Some((value, key)) = root.member("nextCursorKey").and_then(|v| Some((v, v.text()?)))
        {
            replace(editor, value, words.name(&key));
        }
        if let Some((value, cursor)) = root.member("nextCursor").and_then(|v| Some((v, v.text()?)))
        {
            replace(editor, value, say_cursor(&cursor, words));
        }
    }

    /// The one message of Storage's that ends with an object's exact name.
    fn error<'a>(&self, editor: &mut Editor<'a>, root: Value<'a>) {
        const INVALID_KEY: &str = "Invalid key: ";
        let Some(words) = &self.words else { return };
        let Some(value) = root.member("message") else { return };
        let name = value.text().and_then(|text| words.name(text.strip_prefix(INVALID_KEY)?));
        replace(editor, value, name.map(|name| format!("{INVALID_KEY}{name}")));
    }

    /// Where a resumable upload goes on: at this proxy, with a mark of its side, whatever host, port or prefix the side believes to
    /// have (trap 13).
    pub fn location(&self, settings: &Settings, headers: &mut HeaderMap, public: &PublicName) {
        if self.answer != Answer::UploadBegun {
            return;
        }
        let Some(location) = headers.get(LOCATION).and_then(|value| value.to_str().ok()) else {
            return;
        };
        let Some((_, id)) = location.split_once(UPLOADS) else { return };
        let (sign, id) = id.strip_prefix("sign/").map_or(("", id), |id| ("sign/", id));
        let end = id.find(['?', '#']).unwrap_or(id.len());
        let (id, behind) = id.split_at(end);
        let id =
            mark::sign(&settings.mark_keys, Purpose::Upload, self.side, id.trim_end_matches('/'));
        let base = public.authority.as_ref().map_or_else(String::new, |authority| {
            let scheme = if public.is_secure { "https" } else { "http" };
            format!("{scheme}://{authority}")
        });
        let url = format!("{base}/storage/v1{UPLOADS}{sign}{id}{behind}");
        if let Ok(value) = HeaderValue::try_from(url) {
            headers.insert(LOCATION, value);
        }
    }
}

fn replace<'a>(editor: &mut Editor<'a>, value: Value<'a>, said: Option<String>) {
    if let Some(said) = said {
        editor.replace(value, &said);
    }
}

/// Buckets of new that only one old bucket leads to get its name; one that several share keeps its own.
fn old_names<'a>(settings: &Settings, editor: &mut Editor<'a>, root: Value<'a>) {
    for bucket in root.items() {
        for value in ["id", "name"].into_iter().filter_map(|key| bucket.member(key)) {
            let name = value.text().unwrap_or_default();
            let mut lines = settings.map.within(&name);
            if let (Some(line), None) = (lines.next(), lines.next()) {
                editor.replace(value, &line.old);
            }
        }
    }
}

/// The names in a signed URL's path, which some servers encode and others don't.
fn signed_path(words: &Words, path: &str) -> Option<String> {
    let at = SIGNED.iter().find_map(|begin| Some(path.find(begin)? + begin.len()))?;
    let (base, names) = path.split_at_checked(at)?;
    if let Some(said) = words.path(names) {
        return Some(format!("{base}{said}"));
    }
    let (bucket, name) = names.split_once('/')?;
    let bucket = percent_decode_str(bucket).decode_utf8().ok()?;
    let bucket = encode_segment(words.bucket(&bucket)?);
    Some(format!("{base}{bucket}/{}", say_raw(name, words)?))
}

/// An error of Storage's: the status that counts is inside (trap 30).
#[derive(Deserialize)]
struct Inside {
    #[serde(rename = "statusCode")]
    status: Option<serde_json::Value>,
    code: Option<String>,
    error: Option<String>,
}

impl Elsewhere {
    /// Whether an answer of this status may be a reason to ask the other side, so that its body is worth reading.
    #[must_use]
    pub fn may_be(self, status: StatusCode) -> bool {
        match status.as_u16() {
            400 | 404 => true,
            401 | 403 => self == Self::MissingOrForeign,
            _ => false,
        }
    }

    /// Whether it is: the object is not found, or the token is not this side's. To HEAD there is no body, and Storage's 400 says no more.
    #[must_use]
    pub fn is(self, method: &Method, status: StatusCode, body: &[u8]) -> bool {
        if status == StatusCode::NOT_FOUND || (method == Method::HEAD && self.may_be(status)) {
            return true;
        }
        let Ok(inside) = serde_json::from_slice::<Inside>(body) else { return false };
        let number = inside.status.and_then(|status| match status {
            serde_json::Value::String(text) => text.parse().ok(),
            number => number.as_u64(),
        });
        if status == StatusCode::BAD_REQUEST && number == Some(404) {
            return true;
        }
        let is_foreign = |word: &String| {
            let letters = word.chars().filter(char::is_ascii_alphabetic);
            let word = letters.collect::<String>().to_ascii_lowercase();
            matches!(&*word, "invalidjwt" | "invalidsignature" | "signaturedoesnotmatch")
        };
        self == Self::MissingOrForeign
            && matches!(number, None | Some(400 | 401 | 403))
            && [inside.code, inside.error].iter().flatten().any(is_foreign)
    }
}

#[cfg(test)]
mod tests;
