use http::HeaderValue;
use proptest::prelude::*;

use super::buckets::tests::map;
use super::mark::{sign, verify};
use super::*;

const LINES: [(&str, &str); 5] = [
    ("artifacts", "artifacts/growth"),
    ("avatars", "media/avatars"),
    ("covers", "media/covers"),
    ("docs", "papers"),
    ("bücher", "media/bücher und mehr"),
];

fn settings() -> Settings {
    Settings {
        map: map(&LINES),
        fallback: true,
        mark_keys: vec![Secret::new("mark-key")],
        body_bytes: 1 << 20,
        ..Settings::default()
    }
}

fn needs_body(settings: &Settings, method: &Method, tail: &str) -> bool {
    Endpoint::of(method, tail).needs_body(settings, method, tail)
}

fn owned(owners: &[(&str, Side)]) -> Settings {
    let owners = owners.iter().map(|(name, side)| ((*name).to_owned(), *side)).collect();
    Settings { owners, ..settings() }
}

/// Path and body as the side gets them.
fn said(
    settings: &Settings,
    side: Side,
    method: &str,
    target: &str,
    body: Option<&str>,
) -> Result<(String, Option<String>), Refused> {
    let (tail, query) = target.split_once('?').map_or((target, None), |(t, q)| (t, Some(q)));
    let (method, headers) = (method.parse().unwrap(), HeaderMap::new());
    let bytes = body.map(|body| Bytes::copy_from_slice(body.as_bytes()));
    let body = bytes.as_ref().filter(|_| needs_body(settings, &method, tail));
    let asked = Asked { method: &method, tail, query, headers: &headers, body };
    let said = asked.endpoint().translate(settings, &asked, side)?;
    let mut path = said.tail.unwrap_or_else(|| tail.to_owned());
    if let Some(query) = said.query.as_deref().or(query) {
        path = format!("{path}?{query}");
    }
    Ok((path, said.body.map(|body| String::from_utf8(body.to_vec()).unwrap())))
}

#[test]
fn paths_are_said_either_way_and_keep_their_bytes() {
    for (method, old, new) in [
        ("GET", "/object/artifacts/a%2Fb/%C3%A9+c", "/object/artifacts/growth/a%2Fb/%C3%A9+c"),
        ("GET", "/object/public/avatars/x?download=", "/object/public/media/avatars/x?download="),
        ("HEAD", "/object/authenticated/docs/x", "/object/authenticated/papers/x"),
        ("GET", "/object/info/covers/a", "/object/info/media/covers/a"),
        ("GET", "/object/info/public/covers/a", "/object/info/public/media/covers/a"),
        ("POST", "/object/avatars/a//b", "/object/media/avatars/a//b"),
        ("PUT", "/object/avatars/a", "/object/media/avatars/a"),
        ("DELETE", "/object/avatars/a", "/object/media/avatars/a"),
        ("POST", "/object/sign/avatars/a", "/object/sign/media/avatars/a"),
        ("GET", "/object/sign/avatars/a?token=t", "/object/sign/media/avatars/a?token=t"),
        ("POST", "/object/upload/sign/avatars/a", "/object/upload/sign/media/avatars/a"),
        (
            "GET",
            "/render/image/public/avatars/a?width=1",
            "/render/image/public/media/avatars/a?width=1",
        ),
        ("GET", "/object/b%C3%BCcher/x", "/object/media/b%C3%BCcher%20und%20mehr/x"),
        ("GET", "/bucket/docs", "/bucket/papers"),
        ("DELETE", "/bucket/docs", "/bucket/papers"),
        ("POST", "/bucket/docs/empty", "/bucket/papers/empty"),
        ("DELETE", "/cdn/avatars/a", "/cdn/media/avatars/a"),
        ("GET", "/object/other/a", "/object/other/a"),
        ("GET", "/health", "/health"),
    ] {
        let path = |side, target| said(&settings(), side, method, target, None).unwrap().0;
        assert_eq!(path(Side::New, old), new, "{method} {old}");
        assert_eq!(path(Side::Old, new), old, "{method} {new}");
        assert_eq!((path(Side::Old, old), path(Side::New, new)), (old.into(), new.into()));
    }
    let folder = "/object/media/%61vatars%2Fx";
    assert_eq!(said(&settings(), Side::Old, "GET", folder, None).unwrap().0, "/object/avatars/x");
}

/// Method, the path on old and on new, the body there.
const BODIES: [(&str, &str, &str, &str, &str); 9] = [
    (
        "POST",
        "/object/list/avatars",
        "/object/list/media",
        r#"{"prefix":"","limit":1e2}"#,
        r#"{"prefix":"avatars","limit":1e2}"#,
    ),
    (
        "POST",
        "/object/list/avatars",
        "/object/list/media",
        r#"{ "search":"x", "prefix":"a/b" }"#,
        r#"{ "search":"x", "prefix":"avatars/a/b" }"#,
    ),
    (
        "POST",
        "/object/list-v2/avatars",
        "/object/list-v2/media",
        r#"{"prefix":"a","cursor":"bDphL3gKbzphc2M="}"#,
        r#"{"prefix":"avatars/a","cursor":"bDphdmF0YXJzL2EveApvOmFzYw=="}"#,
    ),
    (
        "POST",
        "/object/sign/avatars",
        "/object/sign/media",
        r#"{"expiresIn":60,"paths":["a","b/c"]}"#,
        r#"{"expiresIn":60,"paths":["avatars/a","avatars/b/c"]}"#,
    ),
    (
        "DELETE",
        "/object/avatars",
        "/object/media",
        r#"{"prefixes":["a", "b"]}"#,
        r#"{"prefixes":["avatars/a", "avatars/b"]}"#,
    ),
    (
        "POST",
        "/object/copy",
        "/object/copy",
        r#"{"bucketId":"avatars","sourceKey":"a","destinationKey":"b"}"#,
        r#"{"bucketId":"media","sourceKey":"avatars/a","destinationKey":"avatars/b"}"#,
    ),
    (
        "POST",
        "/object/move",
        "/object/move",
        r#"{"bucketId":"avatars","sourceKey":"a","destinationBucket":"docs","destinationKey":"b"}"#,
        r#"{"bucketId":"media","sourceKey":"avatars/a","destinationBucket":"papers","destinationKey":"b"}"#,
    ),
    (
        "PUT",
        "/bucket/docs",
        "/bucket/papers",
        r#"{"id":"docs","name":"docs","public":true}"#,
        r#"{"id":"papers","name":"papers","public":true}"#,
    ),
    (
        "POST",
        "/bucket",
        "/bucket",
        r#"{"id":"docs","name":"docs"}"#,
        r#"{"id":"papers","name":"papers"}"#,
    ),
];

#[test]
fn bodies_are_said_either_way_and_all_else_in_them_stays() {
    for (method, old_path, new_path, old, new) in BODIES {
        let at = |side, path, body| {
            let (path, changed) = said(&settings(), side, method, path, Some(body)).unwrap();
            (path, changed.unwrap_or_else(|| body.to_owned()))
        };
        assert_eq!(at(Side::New, old_path, old), (new_path.to_owned(), new.to_owned()));
        assert_eq!(at(Side::Old, new_path, new), (old_path.to_owned(), old.to_owned()));
        assert_eq!(at(Side::Old, old_path, old).1, old);
        assert_eq!(at(Side::New, new_path, new).1, new);
    }
}

#[test]
fn a_missing_prefix_and_a_second_bucket_are_added_where_they_are_needed() {
    let body = |side, path, body| said(&settings(), side, "POST", path, Some(body)).unwrap().1;
    assert_eq!(
        body(Side::New, "/object/list-v2/avatars", r#"{"limit":2}"#).unwrap(),
        r#"{"prefix":"avatars/","limit":2}"#
    );
    assert_eq!(
        body(Side::New, "/object/list-v2/avatars", "{}").unwrap(),
        r#"{"prefix":"avatars/"}"#
    );
    let both = r#"{"bucketId":"media","sourceKey":"avatars/a","destinationKey":"covers/b"}"#;
    assert_eq!(
        body(Side::Old, "/object/copy", both).unwrap(),
        r#"{"destinationBucket":"covers","bucketId":"avatars","sourceKey":"a","destinationKey":"b"}"#
    );
    assert_eq!(body(Side::New, "/object/copy", both), None);
}

#[test]
fn what_would_hit_others_is_refused() {
    let refused = |settings: &Settings, side, method, path, body| {
        said(settings, side, method, path, body).err()
    };
    let plain = settings();
    for (method, path) in [
        ("DELETE", "/bucket/avatars"),
        ("PUT", "/bucket/avatars"),
        ("POST", "/bucket/avatars/empty"),
    ] {
        let body = (method == "PUT").then_some("{}");
        assert_eq!(refused(&plain, Side::New, method, path, body), Some(Refused::Shared), "{path}");
        assert_eq!(refused(&plain, Side::Old, method, path, body), None, "{path}");
    }
    assert_eq!(refused(&plain, Side::New, "GET", "/bucket/avatars", None), None);
    assert_eq!(refused(&plain, Side::Old, "DELETE", "/bucket/media", None), Some(Refused::Several));
    assert_eq!(refused(&plain, Side::New, "DELETE", "/bucket/media", None), None);
    let spread = Some(r#"{"prefixes":["avatars/a","covers/b"]}"#);
    assert_eq!(
        refused(&plain, Side::Old, "DELETE", "/object/media", spread),
        Some(Refused::Several)
    );
    assert_eq!(refused(&plain, Side::New, "DELETE", "/object/media", spread), None);
    let root = Some(r#"{"prefix":""}"#);
    assert_eq!(
        refused(&plain, Side::Old, "POST", "/object/list/media", root),
        Some(Refused::Several)
    );
    for bad in ["", "x", "\u{1}"] {
        let found = refused(&plain, Side::New, "DELETE", "/object/avatars", Some(bad));
        assert_eq!(found, Some(Refused::Unreadable), "{bad:?}");
    }
    let nested =
        Settings { map: map(&[("all", "media"), ("avatars", "media/avatars")]), ..settings() };
    let (whole, mine) = ("/object/all/avatars/x", "/object/all/x");
    assert_eq!(refused(&nested, Side::New, "GET", whole, None), Some(Refused::Collides));
    assert_eq!(refused(&nested, Side::Old, "GET", whole, None), None);
    assert_eq!(refused(&nested, Side::New, "GET", mine, None), None);
    assert_eq!(refused(&nested, Side::New, "DELETE", "/bucket/all", None), Some(Refused::Shared));
}

#[test]
fn a_name_that_storage_would_make_a_text_of_is_not_left_in_other_words() {
    let plain = settings();
    let on_new = |method: &str, path: &str, body: &str| {
        said(&plain, Side::New, method, path, Some(body)).map(|said| said.1.unwrap())
    };
    // A list of one, and a folder that is nothing.
    for (method, path, body, want) in [
        ("DELETE", "/object/avatars", r#"{"prefixes":"a"}"#, r#"{"prefixes":"avatars/a"}"#),
        ("POST", "/object/sign/avatars", r#"{"paths":"a"}"#, r#"{"paths":"avatars/a"}"#),
        ("POST", "/object/list/avatars", r#"{"prefix":null}"#, r#"{"prefix":"avatars"}"#),
        ("POST", "/object/list/avatars", r#"{"limit":1}"#, r#"{"prefix":"avatars","limit":1}"#),
    ] {
        assert_eq!(on_new(method, path, body).unwrap(), want, "{path} {body}");
    }
    for (method, path, body) in [
        ("DELETE", "/object/avatars", r#"{"prefixes":["a",5]}"#),
        ("DELETE", "/object/avatars", r#"{"prefixes":["a",["covers/b"]]}"#),
        ("DELETE", "/object/avatars", r#"{"prefixes":["a",null]}"#),
        ("DELETE", "/object/avatars", r#"{"prefixes":7}"#),
        ("DELETE", "/object/avatars", r#"{"prefixes":["\ud800"]}"#),
        ("DELETE", "/object/avatars", r#"{"\ud800":1,"prefixes":["a"]}"#),
        ("POST", "/object/sign/avatars", r#"{"paths":[true]}"#),
        ("POST", "/object/list/avatars", r#"{"prefix":["covers"]}"#),
        ("POST", "/object/list-v2/avatars", r#"{"prefix":["covers"]}"#),
        ("POST", "/object/list-v2/avatars", r#"{"prefix":false}"#),
        ("POST", "/object/copy", r#"{"bucketId":["avatars"],"sourceKey":"a"}"#),
        ("POST", "/object/move", r#"{"bucketId":"avatars","sourceKey":1}"#),
        ("POST", "/object/move", r#"{"bucketId":"b","sourceKey":"a","destinationKey":[""]}"#),
        ("POST", "/object/move", r#"{"bucketId":"b","destinationBucket":["avatars"]}"#),
        ("POST", "/bucket", r#"{"name":["docs"]}"#),
    ] {
        assert_eq!(on_new(method, path, body), Err(Refused::Unreadable), "{path} {body}");
    }
}

#[test]
fn trap_29_s3_and_what_can_not_be_split_are_refused_without_an_owner() {
    let find =
        |settings: &Settings, path| said(settings, Side::New, "GET", path, None).map(|s| s.0);
    for path in ["/s3/b/k", "/s3", "//s3/b"] {
        assert_eq!(find(&settings(), path), Err(Refused::S3), "{path}");
    }
    assert_eq!(find(&settings(), "/iceberg/v1/config"), Err(Refused::Foreign));
    let s3 = Settings { s3: Some(Side::New), owner: Some(Side::New), ..settings() };
    assert_eq!(find(&s3, "/s3/avatars/k?list-type=2").unwrap(), "/s3/avatars/k?list-type=2");
    assert_eq!(find(&s3, "/vector/x").unwrap(), "/vector/x");
    let (method, headers) = (Method::PUT, HeaderMap::new());
    let asked =
        Asked { method: &method, tail: "/s3/b", query: None, headers: &headers, body: None };
    assert!(asked.endpoint().translate(&s3, &asked, Side::New).unwrap().is_sealed);
    assert_eq!(asked.endpoint().belongs(&s3, &asked), Belongs::ToIssuer(Side::New));
}

fn whose(
    settings: &Settings,
    method: &str,
    target: &str,
    headers: &HeaderMap,
    body: Option<&str>,
) -> Belongs {
    let (tail, query) = target.split_once('?').map_or((target, None), |(t, q)| (t, Some(q)));
    let method = method.parse().unwrap();
    let body = body.map(|body| Bytes::copy_from_slice(body.as_bytes()));
    let asked = Asked { method: &method, tail, query, headers, body: body.as_ref() };
    asked.endpoint().belongs(settings, &asked)
}

#[test]
fn owners_have_their_buckets_in_either_dialect() {
    let settings = owned(&[("avatars", Side::New), ("papers", Side::Old), ("plain", Side::New)]);
    let none = HeaderMap::new();
    let mut tus = HeaderMap::new();
    tus.insert(
        "upload-metadata",
        HeaderValue::from_static("bucketName YXZhdGFycw==,objectName eA=="),
    );
    for (method, path, headers, body, want) in [
        ("GET", "/object/avatars/x", &none, None, Some(Side::New)),
        ("POST", "/object/media/avatars/x", &none, None, Some(Side::New)),
        ("GET", "/object/media/covers/x", &none, None, None),
        ("GET", "/object/docs/x", &none, None, Some(Side::Old)),
        ("GET", "/object/papers/x", &none, None, Some(Side::Old)),
        ("GET", "/object/plain/x", &none, None, Some(Side::New)),
        ("GET", "/object/p%6Cain/x", &none, None, Some(Side::New)),
        (
            "POST",
            "/object/copy",
            &none,
            Some(r#"{"bucketId":"avatars","sourceKey":"a","destinationKey":"b"}"#),
            Some(Side::New),
        ),
        (
            "POST",
            "/object/copy",
            &none,
            Some(
                r#"{"bucketId":"avatars","sourceKey":"a","destinationBucket":"covers","destinationKey":"b"}"#,
            ),
            None,
        ),
        ("POST", "/bucket", &none, Some(r#"{"name":"docs"}"#), Some(Side::Old)),
        ("POST", "/upload/resumable", &tus, None, Some(Side::New)),
    ] {
        let want = want.map_or(Belongs::ToRoute, Belongs::ToOwner);
        assert_eq!(whose(&settings, method, path, headers, body), want, "{method} {path} {body:?}");
    }
    let between =
        r#"{"bucketId":"avatars","sourceKey":"a","destinationBucket":"docs","destinationKey":"b"}"#;
    for side in Side::ALL {
        let found = said(&settings, side, "POST", "/object/move", Some(between));
        assert_eq!(found.err(), Some(Refused::Owners));
    }
    let half = between.replace("docs", "covers");
    assert_eq!(
        said(&settings, Side::Old, "POST", "/object/move", Some(&half)).err(),
        Some(Refused::Owners)
    );
    assert!(said(&settings, Side::New, "POST", "/object/move", Some(&half)).is_ok());
}

#[test]
fn trap_28_what_was_issued_goes_to_its_issuer() {
    let settings = settings();
    let keys = &settings.mark_keys;
    let none = HeaderMap::new();
    for side in Side::ALL {
        let token = sign(keys, Purpose::Token, side, "a.b.c");
        let id = sign(keys, Purpose::Upload, side, "aWQ");
        let mut signature = HeaderMap::new();
        signature.insert(X_SIGNATURE, token.parse().unwrap());
        for (method, path, headers) in [
            ("GET", format!("/object/sign/avatars/x?download=a&token={token}"), &none),
            ("HEAD", format!("/render/image/sign/avatars/x?token={token}"), &none),
            ("PUT", format!("/object/upload/sign/avatars/x?token={token}"), &none),
            ("PATCH", format!("/upload/resumable/{id}"), &none),
            ("DELETE", format!("/upload/resumable/sign/{id}"), &none),
            ("OPTIONS", format!("/upload/resumable/{id}"), &none),
            ("POST", "/upload/resumable/sign".to_owned(), &signature),
        ] {
            assert_eq!(whose(&settings, method, &path, headers, None), Belongs::ToIssuer(side));
        }
        let path = format!("/object/sign/x/y?a=%2F&token={token}&b");
        let plain = "/object/sign/x/y?a=%2F&token=a.b.c&b";
        assert_eq!(said(&settings, side, "GET", &path, None).unwrap().0, plain);
        let path = format!("/upload/resumable/sign/{id}/");
        assert_eq!(
            said(&settings, side, "PATCH", &path, None).unwrap().0,
            "/upload/resumable/sign/aWQ/"
        );
    }
    for owner in [None, Some(Side::Old), Some(Side::New)] {
        let settings = Settings { owner, ..settings.clone() };
        let want = Belongs::ToIssuer(owner.unwrap_or(Side::Old));
        for path in
            ["/object/sign/avatars/x?token=a.b.c", "/upload/resumable/aWQ", "/object/sign/b/x"]
        {
            assert_eq!(whose(&settings, "GET", path, &none, None), want, "{path}");
        }
        let unsigned = whose(&settings, "POST", "/upload/resumable", &none, None);
        assert_eq!(unsigned, Belongs::ToRoute);
    }
    let forged = "/object/sign/b/x?token=a.b.c.nAAAAAAAAAAAAAAAA";
    assert_eq!(whose(&settings, "GET", forged, &none, None), Belongs::ToIssuer(Side::Old));
    assert_eq!(said(&settings, Side::Old, "GET", forged, None).unwrap().0, forged, "as it came");
}

#[test]
fn upload_metadata_keeps_its_order_and_what_it_does_not_name() {
    let settings = settings();
    let (method, mut headers) = (Method::POST, HeaderMap::new());
    let metadata = "contentType aW1hZ2U=,bucketName YXZhdGFycw==, objectName YS9i,is_x,x !";
    headers.insert("upload-metadata", HeaderValue::from_static(metadata));
    let asked = Asked {
        method: &method,
        tail: "/upload/resumable",
        query: None,
        headers: &headers,
        body: None,
    };
    let said = asked.endpoint().translate(&settings, &asked, Side::New).unwrap().headers;
    let want = "contentType aW1hZ2U=,bucketName bWVkaWE=,objectName YXZhdGFycy9hL2I=,is_x,x !";
    assert_eq!(said, [(body::UPLOAD_METADATA, HeaderValue::from_static(want))]);
    assert!(asked.endpoint().translate(&settings, &asked, Side::Old).unwrap().headers.is_empty());
}

#[test]
fn only_plain_reads_may_be_asked_of_the_other_side() {
    let settings = owned(&[("mine", Side::Old)]);
    let marked = sign(&settings.mark_keys, Purpose::Token, Side::New, "a.b.c");
    let may = |settings: &Settings, method: &str, target: &str| {
        let (tail, query) = target.split_once('?').map_or((target, None), |(t, q)| (t, Some(q)));
        let (method, headers) = (method.parse().unwrap(), HeaderMap::new());
        let asked = Asked { method: &method, tail, query, headers: &headers, body: None };
        asked.endpoint().elsewhere(settings, &asked)
    };
    for (method, path, want) in [
        ("GET", "/object/avatars/x", Some(Elsewhere::Missing)),
        ("HEAD", "/object/avatars/x", Some(Elsewhere::Missing)),
        ("GET", "/object/public/b/x", Some(Elsewhere::Missing)),
        ("GET", "/object/info/b/x", Some(Elsewhere::Missing)),
        ("GET", "/render/image/public/b/x", Some(Elsewhere::Missing)),
        ("GET", "/object/sign/b/x?token=a.b.c", Some(Elsewhere::MissingOrForeign)),
        ("GET", &*format!("/object/sign/b/x?token={marked}"), None),
        ("GET", "/object/mine/x", None),
        ("POST", "/object/list/b", None),
        ("DELETE", "/object/b/x", None),
        ("GET", "/bucket/b", None),
        ("HEAD", "/upload/resumable/aWQ", None),
    ] {
        assert_eq!(may(&settings, method, path), want, "{method} {path}");
        assert_eq!(may(&Settings { fallback: false, ..settings.clone() }, method, path), None);
        assert_eq!(
            may(&Settings { owner: Some(Side::Old), ..settings.clone() }, method, path),
            None
        );
    }
}

#[test]
fn no_body_is_read_without_need() {
    let empty = Settings::default();
    let some = settings();
    for (method, path, want) in [
        ("POST", "/object/list/avatars", true),
        ("POST", "/object/list/media", true),
        ("POST", "/object/list/docs", false),
        ("POST", "/object/list/other", false),
        ("DELETE", "/object/avatars", true),
        ("POST", "/object/avatars/list", false),
        ("POST", "/object/copy", true),
        ("POST", "/bucket", true),
        ("PUT", "/bucket/docs", true),
        ("PUT", "/bucket/other", false),
        ("POST", "/upload/resumable", false),
    ] {
        let method = method.parse().unwrap();
        assert_eq!(needs_body(&some, &method, path), want, "{method} {path}");
        assert!(!needs_body(&empty, &method, path), "{method} {path}");
    }
    assert!(needs_body(
        &Settings { map: BucketMap::default(), ..owned(&[("b", Side::Old)]) },
        &Method::POST,
        "/object/copy"
    ));
}

proptest! {
    /// Nothing that can be sent is a panic, and what one side says the other says back.
    #[test]
    fn any_request_is_read_without_a_panic(
        method in "GET|HEAD|POST|PUT|DELETE|PATCH",
        tail in "/(object|bucket|upload|render|cdn|s3)?(/|list|list-v2|sign|copy|move|avatars|media|artifacts|growth|resumable|%2F|%C3|%|é|\\.){0,8}",
        query in prop::option::of("(token=|&|a|\\.|%2){0,6}"),
        body in "[\\[\\]{}\",:a/]{0,20}|\\{\"(prefix|prefixes|paths|bucketId|id)\":(\"(media|avatars|avatars/x)\"|\\[\"avatars/x\",\"\"\\]|null)\\}",
        metadata in "(bucketName|objectName| |YXZhdGFycw==|,){0,6}",
    ) {
        let settings = owned(&[("docs", Side::New)]);
        let method = method.parse().unwrap();
        let mut headers = HeaderMap::new();
        headers.insert("upload-metadata", metadata.parse().unwrap());
        headers.insert(X_SIGNATURE, metadata.parse().unwrap());
        let body = Bytes::from(body);
        for body in [None, Some(&body)] {
            let asked = Asked { method: &method, tail: &tail, query: query.as_deref(), headers: &headers, body };
            let _belongs = asked.endpoint().belongs(&settings, &asked);
            let _elsewhere = asked.endpoint().elsewhere(&settings, &asked);
            for side in Side::ALL {
                if let Ok(said) = asked.endpoint().translate(&settings, &asked, side)
                    && let Some(tail) = said.tail
                {
                    prop_assert!(tail.is_ascii() || !asked.tail.is_ascii(), "{}", tail);
                }
            }
        }
    }

    #[test]
    fn the_laws_that_are_fuzzed_hold(
        method: u8,
        tail in "/(object|bucket|upload/resumable|render/image|cdn)(/|public|sign|info|list|copy|a|b|c|m|v|%61|%C3%A9|%aa|%2F|é| x){0,8}",
        rest in "(\\n[a-z /?=&.{}\":\\[\\],]{0,20}){0,3}",
    ) {
        let bytes = [&[method][..], tail.as_bytes(), rest.as_bytes()].concat();
        prop_assert_eq!(fuzz::laws(&bytes), Ok(()));
    }

    #[test]
    fn a_path_said_and_said_back_is_the_same(line in 0..LINES.len(), name in "[a-zé%/.+]{1,12}") {
        let settings = settings();
        let (old, _) = LINES[line];
        prop_assume!(!(old == "artifacts" && name.starts_with("growth/")));
        let raw = format!("/object/{}/{name}", crate::rewrite::query::encode_segment(old));
        let new = said(&settings, Side::New, "GET", &raw, None).unwrap().0;
        prop_assert!(new.ends_with(&name));
        prop_assert_eq!(said(&settings, Side::Old, "GET", &new, None).unwrap().0, raw);
    }

    #[test]
    fn a_token_survives_its_mark(token in "[a-zA-Z0-9_-]{1,20}(\\.[a-zA-Z0-9_-]{1,20}){0,2}") {
        let settings = settings();
        let marked = sign(&settings.mark_keys, Purpose::Token, Side::New, &token);
        prop_assert_eq!(verify(&settings.mark_keys, Purpose::Token, &marked), Some((Side::New, &*token)));
        let path = format!("/object/sign/b/x?token={marked}");
        prop_assert_eq!(said(&settings, Side::New, "GET", &path, None).unwrap().0, format!("/object/sign/b/x?token={token}"));
    }
}
