//! A request to storage in the words of its side, and what says the answer back.

use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use percent_encoding::percent_decode_str;

use super::body::{Meant, UPLOAD_METADATA};
use super::buckets::{Reading, Words};
use super::endpoint::{Endpoint, Kind};
use super::mark::{self, Purpose};
use super::{Asked, Settings, TOKEN, X_SIGNATURE, decoded, tus};
use crate::identify::query;
use crate::rewrite::query::encode_segment;
use crate::side::Side;

/// Why a request to storage can't be said on its side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The body names what is to be renamed, and is no JSON, or gives a name that is no text.
    #[error("the body is no JSON whose names are texts, and what it names has to be read")]
    Unreadable,
    /// On new the bucket is a folder of another one, or holds other buckets' folders.
    #[error("on this side the bucket shares its place with others, whose files would be hit too")]
    Shared,
    /// What is named is spread over several buckets on old.
    #[error("what is named here is spread over several buckets of the old project")]
    Several,
    /// The name is where another old bucket leads.
    #[error("on this side the name belongs to another bucket's folder")]
    Collides,
    /// Source and destination have different owners.
    #[error("the two buckets are served by different projects")]
    Owners,
    /// S3 without an owner.
    #[error("the S3 protocol can't be split between two projects")]
    S3,
    /// What each project has for itself.
    #[error("this part of storage can't be split between two projects")]
    Foreign,
}

/// A request as its side says it; `None` is what stays as it is.
#[derive(Debug)]
pub struct Translated {
    /// The raw path below `/storage/v1`.
    pub tail: Option<String>,
    /// The raw query.
    pub query: Option<String>,
    /// Headers that change.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The body.
    pub body: Option<Bytes>,
    /// S3: whatever is signed must not be touched, so not even keys are swapped.
    pub is_sealed: bool,
    /// Says the answer back.
    pub restore: Restore,
}

/// What says an answer in the client's words again.
#[derive(Clone, Debug)]
pub struct Restore {
    /// The side that answers.
    pub side: Side,
    /// From the side's words to the client's; `None` when they are the same.
    pub words: Option<Words>,
    /// What a good answer looks like.
    pub answer: Answer,
}

/// The shape of an answer, as far as something in it is to be said back or marked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Nothing in it.
    Opaque,
    /// `{signedURL}`
    Signed,
    /// `[{path, signedURL}]`
    SignedMany,
    /// `{url, token}`
    SignedUpload,
    /// `{Key}`: bucket and name.
    Stored,
    /// `{Key}`: a name alone.
    Moved,
    /// `[{bucket_id, name}]`
    Removed,
    /// `{bucket_id, name}`
    Info,
    /// `{objects, folders, nextCursor}`
    ListV2,
    /// `{id, name}` of a bucket.
    Bucket,
    /// `[{id, name}]` of buckets.
    Buckets,
    /// The URL of a resumable upload, in `Location`.
    UploadBegun,
}

/// [`Endpoint::translate`].
pub(super) fn translate(
    settings: &Settings,
    endpoint: &Endpoint,
    asked: &Asked<'_>,
    side: Side,
) -> Result<Translated, Refused> {
    let kind = endpoint.kind;
    match kind {
        Kind::S3 if settings.s3.is_none() => return Err(Refused::S3),
        Kind::Foreign if settings.owner.is_none() => return Err(Refused::Foreign),
        _ => {}
    }
    let meant = Meant::of(settings, endpoint, asked)?;
    check(settings, kind, &meant, side)?;
    let words = words_of(meant.reading, side);
    let destination =
        meant.destination.as_ref().and_then(|(_, reading, _)| words_of(*reading, side));
    let mut headers = Vec::new();
    if let Some(words) = words.as_ref().filter(|_| kind == Kind::UploadBegins) {
        headers.extend(said_metadata(asked, words));
    }
    headers.extend(unmarked_signature(settings, asked, kind));
    let back = if meant.destination.is_some() { &destination } else { &words };
    let restore =
        Restore { side, words: back.as_ref().map(Words::back), answer: answer(kind, asked) };
    Ok(Translated {
        tail: tail(settings, asked, endpoint, words.as_ref()),
        query: unmarked_query(settings, asked, kind),
        headers,
        body: meant.say(kind, words.as_ref(), destination.as_ref()).map(Bytes::from),
        is_sealed: kind == Kind::S3,
        restore,
    })
}

/// From the words that a request is in to the side's.
fn words_of(reading: Reading<'_>, side: Side) -> Option<Words> {
    let Reading::Line(line, said) = reading else { return None };
    let (from, to) = (line.place(said), line.place(side));
    (from != to).then_some(Words { from, to })
}

/// What must not go on.
fn check(
    settings: &Settings,
    kind: Kind,
    meant: &Meant<'_, '_>,
    side: Side,
) -> Result<(), Refused> {
    let [source, destination] = meant.owners(settings);
    let strangers = meant.destination.is_some() && source != destination;
    if strangers && [source, destination].iter().flatten().any(|owner| *owner != side) {
        return Err(Refused::Owners);
    }
    let to = meant.destination.as_ref().map_or(Reading::Same, |(_, reading, _)| *reading);
    if side == Side::Old {
        // A bucket that old doesn't have is simply not found there.
        let is_several = kind != Kind::Bucket && [meant.reading, to].contains(&Reading::Several);
        return if is_several { Err(Refused::Several) } else { Ok(()) };
    }
    if let (Kind::ChangeBucket, Reading::Line(line, Side::Old)) = (kind, meant.reading)
        && settings.map.within(&line.bucket).any(|other| other.is_shared() || other.old != line.old)
    {
        return Err(Refused::Shared);
    }
    let source = meant.objects.iter().map(|name| (meant.reading, name));
    let destination = meant.destination.iter().map(|(_, reading, name)| (*reading, name));
    let collides = |(reading, name): (Reading<'_>, &String)| {
        let Reading::Line(line, Side::Old) = reading else { return false };
        let words = Words { from: line.place(Side::Old), to: line.place(Side::New) };
        words.name(name).is_some_and(|name| settings.map.collides(line, &name))
    };
    if source.chain(destination).any(collides) { Err(Refused::Collides) } else { Ok(()) }
}

/// The path, with bucket and folder in the side's words and an upload's id without its mark; every other byte stays.
fn tail(
    settings: &Settings,
    asked: &Asked<'_>,
    endpoint: &Endpoint,
    words: Option<&Words>,
) -> Option<String> {
    if endpoint.kind == Kind::UploadGoesOn {
        let span = endpoint.rest.clone()?;
        let id = decoded(asked.tail.get(span.clone())?);
        let (_, id) = mark::verify(&settings.mark_keys, Purpose::Upload, &id)?;
        let (before, behind) = (asked.tail.get(..span.start)?, asked.tail.get(span.end..)?);
        return Some(format!("{before}{}{behind}", encode_segment(id)));
    }
    let words = words?;
    let bucket = endpoint.bucket.clone()?;
    let before = asked.tail.get(..bucket.start)?;
    let to = encode_segment(&words.to.bucket);
    let behind = asked.tail.get(bucket.end..)?;
    match &endpoint.rest {
        Some(span) if endpoint.kind != Kind::ChangeBucket => {
            let rest = say_raw(asked.tail.get(span.clone())?, words)?;
            Some(format!("{before}{to}/{rest}"))
        }
        _ => Some(format!("{before}{to}{behind}")),
    }
}

/// An object's raw name in other words; `None` when it is not in the folder.
pub(crate) fn say_raw(raw: &str, words: &Words) -> Option<String> {
    let rest = match words.from.prefix.as_str() {
        "" => raw,
        prefix => strip_decoded(raw, prefix)?,
    };
    let mut said = String::with_capacity(words.to.prefix.len() + 1 + rest.len());
    for segment in words.to.prefix.split('/').filter(|segment| !segment.is_empty()) {
        said.push_str(&encode_segment(segment));
        said.push('/');
    }
    said.push_str(rest);
    Some(said)
}

/// What is raw behind `prefix` and a slash, however those are encoded.
fn strip_decoded<'a>(raw: &'a str, prefix: &str) -> Option<&'a str> {
    let mut at = 0;
    for wanted in prefix.bytes().chain([b'/']) {
        let rest = raw.get(at..)?;
        let is_encoded = rest.starts_with('%');
        let length = if is_encoded { 3 } else { 1 };
        let bytes = raw.as_bytes().get(at..at + length)?;
        let found = if is_encoded {
            percent_decode_str(std::str::from_utf8(bytes).ok()?).next()?
        } else {
            *bytes.first()?
        };
        if found != wanted {
            return None;
        }
        at += length;
    }
    raw.get(at..)
}

fn said_metadata(asked: &Asked<'_>, words: &Words) -> Option<(HeaderName, HeaderValue)> {
    let metadata = asked.headers.get(UPLOAD_METADATA)?.to_str().ok()?;
    Some((UPLOAD_METADATA, HeaderValue::try_from(tus::say(metadata, words)).ok()?))
}

fn unmarked_signature(
    settings: &Settings,
    asked: &Asked<'_>,
    kind: Kind,
) -> Option<(HeaderName, HeaderValue)> {
    if !matches!(kind, Kind::UploadBegins | Kind::UploadGoesOn) {
        return None;
    }
    let signature = asked.headers.get(X_SIGNATURE)?.to_str().ok()?;
    let (_, token) = mark::verify(&settings.mark_keys, Purpose::Token, signature)?;
    Some((X_SIGNATURE, HeaderValue::from_str(token).ok()?))
}

fn unmarked_query(settings: &Settings, asked: &Asked<'_>, kind: Kind) -> Option<String> {
    if !matches!(kind, Kind::SignedRead | Kind::SignedUpload) {
        return None;
    }
    let token = query::value(asked.query?, TOKEN)?;
    let (_, token) = mark::verify(&settings.mark_keys, Purpose::Token, &token)?;
    query::replace(asked.query?, TOKEN, &encode_segment(token))
}

fn answer(kind: Kind, asked: &Asked<'_>) -> Answer {
    match kind {
        Kind::Sign => Answer::Signed,
        Kind::SignMany => Answer::SignedMany,
        Kind::SignUpload => Answer::SignedUpload,
        Kind::Upload | Kind::SignedUpload | Kind::Copy => Answer::Stored,
        Kind::Move => Answer::Moved,
        Kind::RemoveMany => Answer::Removed,
        Kind::Info if *asked.method != http::Method::HEAD => Answer::Info,
        Kind::ListV2 => Answer::ListV2,
        Kind::Bucket | Kind::CreateBucket => Answer::Bucket,
        Kind::Buckets => Answer::Buckets,
        Kind::UploadBegins => Answer::UploadBegun,
        _ => Answer::Opaque,
    }
}
