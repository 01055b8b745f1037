//! Which of Storage's endpoints a path is, and where its names stand in it (`supabase-wire.md` 5.1).

use std::borrow::Cow;
use std::ops::Range;

use http::Method;
use percent_encoding::percent_decode_str;

/// What is asked of Storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// An object's bytes, an image made of it, or only its head: by user or public.
    Read,
    /// What is known of an object.
    Info,
    /// An object's bytes, by the token in the query.
    SignedRead,
    /// Bytes for an object.
    Upload,
    /// Bytes for an object, by the token in the query.
    SignedUpload,
    /// An object is removed, or its cached copies are.
    Remove,
    /// Objects that the body lists are removed.
    RemoveMany,
    /// A folder's contents.
    List,
    /// The same with full names, page by page.
    ListV2,
    /// A URL that reads one object.
    Sign,
    /// URLs that read the objects that the body lists.
    SignMany,
    /// A URL that writes one object.
    SignUpload,
    /// A copy; both names are in the body.
    Copy,
    /// A move; both names are in the body.
    Move,
    /// The list of buckets.
    Buckets,
    /// A new bucket, named in the body.
    CreateBucket,
    /// What is known of a bucket.
    Bucket,
    /// A bucket is changed, emptied or deleted.
    ChangeBucket,
    /// A resumable upload begins; the names are in `Upload-Metadata`.
    UploadBegins,
    /// A resumable upload goes on: what is named is its id.
    UploadGoesOn,
    /// The S3 protocol.
    S3,
    /// What each project has for itself: Iceberg catalogues, vectors.
    Foreign,
    /// Anything else: health, what is not known yet.
    Other,
}

/// An endpoint with its names. Read once for each request: whose it is, how it is said, and what its answer means all begin here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// What is asked.
    pub(super) kind: Kind,
    /// Where the bucket stands in the path.
    pub(super) bucket: Option<Range<usize>>,
    /// Where the rest stands: the object's name, or an upload's id.
    pub(super) rest: Option<Range<usize>>,
}

impl Endpoint {
    /// Reads the raw path below `/storage/v1`, of a request with this method. Any path is one, if only an unknown one.
    #[must_use]
    pub fn of(method: &Method, tail: &str) -> Self {
        let path = Path { tail };
        let (first, rest) = path.segment(0);
        let first = path.decoded(&first);
        match &*first {
            "object" => path.object(method, rest),
            "render" => path.render(rest),
            "bucket" => path.bucket(method, rest),
            "upload" => path.resumable(method, rest),
            "cdn" => path.named(Kind::Remove, rest),
            "s3" => Self::plain(Kind::S3),
            "iceberg" | "vector" => Self::plain(Kind::Foreign),
            _ => Self::plain(Kind::Other),
        }
    }

    const fn plain(kind: Kind) -> Self {
        Self { kind, bucket: None, rest: None }
    }
}

/// Reads segments from a place on.
#[derive(Clone, Copy)]
struct Path<'a> {
    tail: &'a str,
}

impl<'a> Path<'a> {
    /// The segment that begins behind the slash at `at`, and where the next slash is. Several slashes are read as one, as whoever looks
    /// at the path after us may read them.
    fn segment(self, at: usize) -> (Range<usize>, usize) {
        let bytes = self.tail.as_bytes();
        let start = (at..bytes.len()).find(|i| bytes.get(*i) != Some(&b'/')).unwrap_or(bytes.len());
        let end =
            (start..bytes.len()).find(|i| bytes.get(*i) == Some(&b'/')).unwrap_or(bytes.len());
        (start..end, end)
    }

    fn decoded(self, span: &Range<usize>) -> Cow<'a, str> {
        percent_decode_str(self.tail.get(span.clone()).unwrap_or_default()).decode_utf8_lossy()
    }

    /// What is behind the slash at `at`, if anything is.
    fn rest(self, at: usize) -> Option<Range<usize>> {
        let start = at + 1;
        (start < self.tail.len()).then_some(start..self.tail.len())
    }

    /// `/:bucket` and what follows.
    fn named(self, kind: Kind, at: usize) -> Endpoint {
        let (bucket, end) = self.segment(at);
        let bucket = (!bucket.is_empty()).then_some(bucket);
        let rest = bucket.as_ref().and_then(|_| self.rest(end));
        Endpoint { kind, bucket, rest }
    }

    /// A word that is an endpoint with some methods is a bucket's name with all others, as Storage's own router has it.
    fn object(self, method: &Method, at: usize) -> Endpoint {
        let (word, behind) = self.segment(at);
        let word = self.decoded(&word);
        let is_read = matches!(*method, Method::GET | Method::HEAD);
        let is_post = method == Method::POST;
        match &*word {
            "public" | "authenticated" if is_read => self.named(Kind::Read, behind),
            "info" if is_read => self.info(behind),
            "sign" if is_read => self.named(Kind::SignedRead, behind),
            "sign" if is_post => {
                let signed = self.named(Kind::SignMany, behind);
                let kind = if signed.rest.is_some() { Kind::Sign } else { Kind::SignMany };
                Endpoint { kind, ..signed }
            }
            "upload" if is_post || method == Method::PUT => self.signed_upload(method, at, behind),
            "list" if is_post => self.named(Kind::List, behind),
            "list-v2" if is_post => self.named(Kind::ListV2, behind),
            "copy" if is_post && self.rest(behind).is_none() => Endpoint::plain(Kind::Copy),
            "move" if is_post && self.rest(behind).is_none() => Endpoint::plain(Kind::Move),
            _ => self.own(method, at),
        }
    }

    /// `/object/:bucket` and `/object/:bucket/*`.
    fn own(self, method: &Method, at: usize) -> Endpoint {
        let named = self.named(Kind::Read, at);
        let kind = match (method, &named.rest) {
            (&Method::GET | &Method::HEAD, Some(_)) => Kind::Read,
            (&Method::POST | &Method::PUT, Some(_)) => Kind::Upload,
            (&Method::DELETE, Some(_)) => Kind::Remove,
            (&Method::DELETE, None) => Kind::RemoveMany,
            _ => Kind::Other,
        };
        Endpoint { kind, ..named }
    }

    fn info(self, at: usize) -> Endpoint {
        let (word, behind) = self.segment(at);
        match &*self.decoded(&word) {
            "public" | "authenticated" => self.named(Kind::Info, behind),
            _ => self.named(Kind::Info, at),
        }
    }

    fn signed_upload(self, method: &Method, at: usize, behind: usize) -> Endpoint {
        let (word, behind) = self.segment(behind);
        match (&*self.decoded(&word), method) {
            ("sign", &Method::POST) => self.named(Kind::SignUpload, behind),
            ("sign", _) => self.named(Kind::SignedUpload, behind),
            _ => self.own(method, at),
        }
    }

    fn render(self, at: usize) -> Endpoint {
        let (image, behind) = self.segment(at);
        let (word, behind) = self.segment(behind);
        match (&*self.decoded(&image), &*self.decoded(&word)) {
            ("image", "public" | "authenticated") => self.named(Kind::Read, behind),
            ("image", "sign") => self.named(Kind::SignedRead, behind),
            _ => Endpoint::plain(Kind::Other),
        }
    }

    fn bucket(self, method: &Method, at: usize) -> Endpoint {
        let named = self.named(Kind::ChangeBucket, at);
        let kind = match (method, &named.bucket, &named.rest) {
            (&Method::GET | &Method::HEAD, None, _) => Kind::Buckets,
            (_, None, _) => Kind::CreateBucket,
            (&Method::GET | &Method::HEAD, Some(_), None) => Kind::Bucket,
            _ => Kind::ChangeBucket,
        };
        Endpoint { kind, ..named }
    }

    fn resumable(self, method: &Method, at: usize) -> Endpoint {
        let (word, behind) = self.segment(at);
        if self.decoded(&word) != "resumable" {
            return Endpoint::plain(Kind::Other);
        }
        let (mut id, behind) = self.segment(behind);
        if self.decoded(&id) == "sign" {
            (id, _) = self.segment(behind);
        }
        match (id.is_empty(), method) {
            (false, _) => Endpoint { kind: Kind::UploadGoesOn, bucket: None, rest: Some(id) },
            (true, &Method::POST) => Endpoint::plain(Kind::UploadBegins),
            (true, _) => Endpoint::plain(Kind::Other),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(method: &str, tail: &str) -> (Kind, Option<String>, Option<String>) {
        let endpoint = Endpoint::of(&method.parse().unwrap(), tail);
        let text = |span: Option<Range<usize>>| span.map(|span| tail[span].to_owned());
        (endpoint.kind, text(endpoint.bucket), text(endpoint.rest))
    }

    #[test]
    fn every_endpoint_is_known_with_its_names() {
        let table: [(&str, &str, Kind, &str, &str); 50] = [
            ("GET", "/object/b/o/p", Kind::Read, "b", "o/p"),
            ("HEAD", "/object/b/o", Kind::Read, "b", "o"),
            ("POST", "/object/b/o", Kind::Upload, "b", "o"),
            ("PUT", "/object/b/o", Kind::Upload, "b", "o"),
            ("DELETE", "/object/b/o", Kind::Remove, "b", "o"),
            ("DELETE", "/object/b", Kind::RemoveMany, "b", ""),
            ("GET", "/object/public/b/o", Kind::Read, "b", "o"),
            ("GET", "/object/authenticated/b/o", Kind::Read, "b", "o"),
            ("POST", "/object/public/o", Kind::Upload, "public", "o"),
            ("GET", "/object/info/b/o", Kind::Info, "b", "o"),
            ("GET", "/object/info/public/b/o", Kind::Info, "b", "o"),
            ("GET", "/object/info/authenticated/b/o", Kind::Info, "b", "o"),
            ("GET", "/object/sign/b/o", Kind::SignedRead, "b", "o"),
            ("POST", "/object/sign/b/o", Kind::Sign, "b", "o"),
            ("POST", "/object/sign/b", Kind::SignMany, "b", ""),
            ("DELETE", "/object/sign/o", Kind::Remove, "sign", "o"),
            ("POST", "/object/upload/sign/b/o", Kind::SignUpload, "b", "o"),
            ("PUT", "/object/upload/sign/b/o", Kind::SignedUpload, "b", "o"),
            ("POST", "/object/upload/o", Kind::Upload, "upload", "o"),
            ("GET", "/object/upload/sign/b/o", Kind::Read, "upload", "sign/b/o"),
            ("POST", "/object/list/b", Kind::List, "b", ""),
            ("POST", "/object/list-v2/b", Kind::ListV2, "b", ""),
            ("GET", "/object/list/o", Kind::Read, "list", "o"),
            ("POST", "/object/copy", Kind::Copy, "", ""),
            ("POST", "/object/copy/o", Kind::Upload, "copy", "o"),
            ("POST", "/object/move", Kind::Move, "", ""),
            ("GET", "/object", Kind::Other, "", ""),
            ("GET", "/object/b", Kind::Other, "b", ""),
            ("GET", "/render/image/public/b/o", Kind::Read, "b", "o"),
            ("GET", "/render/image/authenticated/b/o", Kind::Read, "b", "o"),
            ("GET", "/render/image/sign/b/o", Kind::SignedRead, "b", "o"),
            ("GET", "/render/b/o", Kind::Other, "", ""),
            ("GET", "/bucket", Kind::Buckets, "", ""),
            ("GET", "/bucket/", Kind::Buckets, "", ""),
            ("POST", "/bucket", Kind::CreateBucket, "", ""),
            ("GET", "/bucket/b", Kind::Bucket, "b", ""),
            ("PUT", "/bucket/b", Kind::ChangeBucket, "b", ""),
            ("DELETE", "/bucket/b", Kind::ChangeBucket, "b", ""),
            ("POST", "/bucket/b/empty", Kind::ChangeBucket, "b", "empty"),
            ("POST", "/upload/resumable", Kind::UploadBegins, "", ""),
            ("POST", "/upload/resumable/sign", Kind::UploadBegins, "", ""),
            ("OPTIONS", "/upload/resumable", Kind::Other, "", ""),
            ("PATCH", "/upload/resumable/aWQ", Kind::UploadGoesOn, "", "aWQ"),
            ("HEAD", "/upload/resumable/sign/aWQ", Kind::UploadGoesOn, "", "aWQ"),
            ("DELETE", "/cdn/b/o", Kind::Remove, "b", "o"),
            ("GET", "/s3/b/o", Kind::S3, "", ""),
            ("GET", "//s%33", Kind::S3, "", ""),
            ("GET", "/iceberg/v1/config", Kind::Foreign, "", ""),
            ("POST", "/vector/ListIndexes", Kind::Foreign, "", ""),
            ("GET", "/health", Kind::Other, "", ""),
        ];
        for (method, tail, kind, bucket, rest) in table {
            let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
            assert_eq!(read(method, tail), (kind, some(bucket), some(rest)), "{method} {tail}");
        }
    }

    proptest! {
        #[test]
        fn any_path_is_read_and_its_spans_are_in_it(method in "GET|POST|PUT|DELETE|PATCH", tail in "(/|object|sign|list|upload|resumable|bucket|render|image|info|%2F|%C3|é|a){0,9}") {
            let endpoint = Endpoint::of(&method.parse().unwrap(), &tail);
            for span in [endpoint.bucket, endpoint.rest].into_iter().flatten() {
                prop_assert!(tail.get(span).is_some());
            }
        }
    }
}
