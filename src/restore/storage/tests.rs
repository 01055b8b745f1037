use proptest::prelude::*;

use super::*;
use crate::rewrite::storage::Folder;
use crate::rewrite::storage::buckets::{BucketMap, Place};
use crate::rewrite::storage::mark::verify;
use crate::secret::Secret;

fn settings() -> Settings {
    let line = |old: &str, bucket: &str, prefix: &str| Folder {
        old: old.to_owned(),
        bucket: bucket.to_owned(),
        prefix: prefix.to_owned(),
    };
    let lines = vec![
        line("avatars", "media", "avatars"),
        line("covers", "media", "covers"),
        line("docs", "papers", ""),
        line("artifacts", "store", "growth"),
    ];
    Settings {
        map: BucketMap::build(lines).unwrap(),
        mark_keys: vec![Secret::new("k")],
        ..Settings::default()
    }
}

fn place(bucket: &str, prefix: &str) -> Place {
    Place { bucket: bucket.to_owned(), prefix: prefix.to_owned() }
}

/// Said on new, asked in the old dialect.
fn restore(answer: Answer) -> Restore {
    let words = Words { from: place("media", "avatars"), to: place("avatars", "") };
    Restore { side: Side::New, words: Some(words), answer }
}

fn body(restore: &Restore, status: u16, text: &str) -> Option<String> {
    let status = StatusCode::from_u16(status).unwrap();
    restore.body(&settings(), status, text.as_bytes()).map(|b| String::from_utf8(b).unwrap())
}

#[test]
fn answers_name_what_the_client_named() {
    for (answer, text, want) in [
        (
            Answer::Stored,
            r#"{"Id":"1","Key":"media/avatars/a/b"}"#,
            r#"{"Id":"1","Key":"avatars/a/b"}"#,
        ),
        (Answer::Stored, r#"{"Key":"other/avatars/a"}"#, ""),
        (Answer::Moved, r#"{"message":"m","Key":"avatars/b"}"#, r#"{"message":"m","Key":"b"}"#),
        (
            Answer::Removed,
            r#"[{"name":"avatars/a","bucket_id":"media"}, {"name":"avatars/b"}]"#,
            r#"[{"name":"a","bucket_id":"avatars"}, {"name":"b"}]"#,
        ),
        (
            Answer::Info,
            r#"{"name":"avatars/a","bucket_id":"media","metadata":{"name":"avatars/a","n":1e400}}"#,
            r#"{"name":"a","bucket_id":"avatars","metadata":{"name":"avatars/a","n":1e400}}"#,
        ),
        (
            Answer::Bucket,
            r#"{"id":"media","name":"media"}"#,
            r#"{"id":"avatars","name":"avatars"}"#,
        ),
        (
            Answer::ListV2,
            r#"{"hasNext":true,"folders":[{"name":"avatars/s/"}],"objects":[{"name":"avatars/a"},{"key":"avatars/b","name":"b"},{"key":"avatars/c","name":"avatars/c"}],"nextCursorKey":"avatars/b","nextCursor":"bDphdmF0YXJzL2EveApvOmFzYw=="}"#,
            r#"{"hasNext":true,"folders":[{"name":"s/"}],"objects":[{"name":"a"},{"key":"b","name":"b"},{"key":"c","name":"c"}],"nextCursorKey":"b","nextCursor":"bDphL3gKbzphc2M="}"#,
        ),
    ] {
        assert_eq!(body(&restore(answer), 200, text).unwrap_or_default(), want, "{answer:?}");
    }
    let error = r#"{"statusCode":"400","error":"InvalidKey","message":"Invalid key: avatars/a~"}"#;
    assert_eq!(body(&restore(Answer::Stored), 400, error).unwrap(), error.replace("avatars/", ""));
    assert_eq!(body(&restore(Answer::Stored), 400, r#"{"message":"Object not found"}"#), None);
    let buckets = r#"[{"id":"papers","name":"papers"},{"id":"media","name":"media"},{"id":"store"},{"id":"x"}]"#;
    let want = r#"[{"id":"docs","name":"docs"},{"id":"media","name":"media"},{"id":"artifacts"},{"id":"x"}]"#;
    assert_eq!(body(&restore(Answer::Buckets), 200, buckets).unwrap(), want);
}

#[test]
fn what_a_side_signs_is_marked_and_said_back() {
    let keys = settings().mark_keys;
    let token = |url: &str| {
        let (_, token) = url.rsplit_once("token=").unwrap();
        let token = token.split('&').next().unwrap().to_owned();
        verify(&keys, Purpose::Token, &token).map(|(side, token)| (side, token.to_owned()))
    };
    let issued = Some((Side::New, "a.b.c".to_owned()));
    for (url, want) in [
        ("/object/sign/media/avatars/x y?.png?token=a.b.c", "/object/sign/avatars/x y?.png?token="),
        ("/object/sign/media/avatars/x%20y?token=a.b.c&z", "/object/sign/avatars/x%20y?token="),
        (
            "https://h/storage/v1/object/sign/media/%61vatars/x?token=a.b.c",
            "https://h/storage/v1/object/sign/avatars/x?token=",
        ),
        (
            "/render/image/sign/media/avatars/x?width=1&token=a.b.c",
            "/render/image/sign/avatars/x?width=1&token=",
        ),
        ("/object/sign/other/x?token=a.b.c", "/object/sign/other/x?token="),
    ] {
        for key in ["signedURL", "signedUrl"] {
            let text = serde_json::json!({ key: url }).to_string();
            let said = body(&restore(Answer::Signed), 200, &text).unwrap();
            let said: serde_json::Value = serde_json::from_str(&said).unwrap();
            let said = said[key].as_str().unwrap();
            assert!(said.starts_with(want), "{said}");
            assert_eq!(token(said), issued, "{said}");
        }
    }
    let many = r#"[{"error":null,"path":"avatars/a","signedURL":"/object/sign/media/avatars/a?token=a.b.c"},{"error":"e","path":"avatars/b","signedURL":null}]"#;
    let said = body(&restore(Answer::SignedMany), 200, many).unwrap();
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!((&said[0]["path"], &said[1]["path"]), (&"a".into(), &"b".into()));
    assert_eq!(token(said[0]["signedURL"].as_str().unwrap()), issued);
    let upload = r#"{"url":"/object/upload/sign/media/avatars/a?token=a.b.c","token":"a.b.c"}"#;
    // Without any map, too: the mark has nothing to do with names.
    for words in [restore(Answer::Signed).words, None] {
        let restore = Restore { words, ..restore(Answer::SignedUpload) };
        let headers: HeaderMap =
            [(CONTENT_TYPE, HeaderValue::from_static("application/json"))].into_iter().collect();
        assert!(restore.wants_body(&Settings::default(), StatusCode::OK, &headers));
        let said: serde_json::Value =
            serde_json::from_str(&body(&restore, 200, upload).unwrap()).unwrap();
        let alone = said["token"].as_str().unwrap();
        assert_eq!(verify(&keys, Purpose::Token, alone), Some((Side::New, "a.b.c")));
        assert!(said["url"].as_str().unwrap().ends_with(&format!("token={alone}")));
    }
}

#[test]
fn trap_13_an_uploads_location_is_the_proxys_whatever_the_side_says() {
    let settings = settings();
    let public =
        PublicName { authority: Some("api.example.com:8443".parse().unwrap()), is_secure: true };
    for (location, kind) in [
        ("https://new.supabase.co/storage/v1/upload/resumable/aWQ", ""),
        ("http://storage:5000/upload/resumable/aWQ", ""),
        ("/upload/resumable/aWQ", ""),
        ("/storage/v1/upload/resumable/aWQ/", ""),
        ("https://new.supabase.co:443/x/upload/resumable/sign/aWQ", "sign/"),
    ] {
        let mut headers = HeaderMap::new();
        headers.insert(LOCATION, location.parse().unwrap());
        restore(Answer::UploadBegun).location(&settings, &mut headers, &public);
        let found = headers[LOCATION].to_str().unwrap();
        let base = format!("https://api.example.com:8443/storage/v1/upload/resumable/{kind}");
        let id = found.strip_prefix(&base).unwrap_or_else(|| panic!("{found}"));
        assert_eq!(verify(&settings.mark_keys, Purpose::Upload, id), Some((Side::New, "aWQ")));
    }
    let mut headers = HeaderMap::new();
    headers.insert(LOCATION, "https://elsewhere/x".parse().unwrap());
    restore(Answer::UploadBegun).location(&settings, &mut headers, &public);
    assert_eq!(headers[LOCATION], "https://elsewhere/x");
}

#[test]
fn trap_30_the_status_that_counts_is_inside() {
    let table: [(u16, &str, bool, bool); 12] = [
        (404, "", true, true),
        (404, "{}", true, true),
        (
            400,
            r#"{"statusCode":"404","error":"not_found","message":"Object not found"}"#,
            true,
            true,
        ),
        (400, r#"{"statusCode":404,"error":"Bucket not found"}"#, true, true),
        (400, r#"{"statusCode":"403","error":"Unauthorized","code":"AccessDenied"}"#, false, false),
        (400, r#"{"statusCode":"409","error":"Duplicate"}"#, false, false),
        (400, "no JSON", false, false),
        (
            400,
            r#"{"statusCode":"400","code":"InvalidJWT","error":"InvalidJWT","message":"signature verification failed"}"#,
            false,
            true,
        ),
        (400, r#"{"statusCode":"400","error":"Invalid JWT"}"#, false, true),
        (400, r#"{"statusCode":"400","error":"InvalidSignature"}"#, false, true),
        (401, r#"{"statusCode":"401","error":"SignatureDoesNotMatch"}"#, false, true),
        (400, r#"{"statusCode":"400","error":"InvalidRange"}"#, false, false),
    ];
    for (status, text, missing, foreign) in table {
        let code = StatusCode::from_u16(status).unwrap();
        for (elsewhere, want) in
            [(Elsewhere::Missing, missing), (Elsewhere::MissingOrForeign, foreign)]
        {
            let found = elsewhere.may_be(code) && elsewhere.is(&Method::GET, code, text.as_bytes());
            assert_eq!(found, want, "{status} {text} {elsewhere:?}");
        }
    }
    assert!(Elsewhere::Missing.is(&Method::HEAD, StatusCode::BAD_REQUEST, b""));
    for status in [200, 206, 304, 416, 500, 503] {
        assert!(!Elsewhere::MissingOrForeign.may_be(StatusCode::from_u16(status).unwrap()));
    }
}

proptest! {
    #[test]
    fn any_answer_is_read_without_a_panic(
        text in "[\\[\\]{}\",:a/?=]{0,20}|\\{\"(Key|name|signedURL|url|token|message)\":\"[a-z/?=&%#]{0,12}\"\\}",
        status in prop::sample::select(vec![200_u16, 404]),
    ) {
        for answer in [Answer::Signed, Answer::SignedMany, Answer::SignedUpload, Answer::Stored, Answer::Moved, Answer::Removed, Answer::Info, Answer::ListV2, Answer::Bucket, Answer::Buckets] {
            body(&restore(answer), status, &text);
        }
    }
}
