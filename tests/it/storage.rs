//! Storage through the proxy: names in either dialect, what stays with its issuer, what is asked of the other side.

use cutover::side::Side;
use serde_json::{Value, json};

use crate::support::conn::Conn;
use crate::support::eventually;
use crate::support::upstream::{Seen, Upstream, response};
use crate::support::world::{ANON_NEW, ANON_OLD, Client, Setup, World};

const JSON: &str = "content-type: application/json\r\n";

fn mapped() -> Setup {
    World::start()
        .set("storage.buckets.avatars", "\"media/avatars\"")
        .set("storage.buckets.covers", "\"media/covers\"")
        .set("storage.buckets.docs", "\"papers\"")
}

fn answers_json(upstream: &Upstream, status: &str, body: &Value) {
    let text = response(status, JSON, &body.to_string());
    upstream.answers(move |_| text.clone());
}

/// Storage's way to say that something is not there.
fn not_found(upstream: &Upstream) {
    let inside =
        json!({ "statusCode": "404", "error": "not_found", "message": "Object not found" });
    answers_json(upstream, "400 Bad Request", &inside);
}

fn body_of(seen: &Seen) -> Value {
    serde_json::from_slice(&seen.body.bytes).unwrap()
}

#[tokio::test]
async fn paths_and_bodies_are_said_on_either_side() {
    let world = mapped().rollout(100).await;
    let user = world.as_user("ada");
    user.get("/storage/v1/object/avatars/a%2Fb?width=1").await.served_by(Side::New);
    assert_eq!(world.new.last().target(), "/storage/v1/object/media/avatars/a%2Fb?width=1");
    let body = r#"{ "prefixes" : ["a","b"] }"#;
    user.ask("DELETE", "/storage/v1/object/avatars", Some(body)).await.served_by(Side::New);
    let seen = world.new.last();
    assert_eq!(seen.target(), "/storage/v1/object/media");
    assert_eq!(seen.body.bytes, br#"{ "prefixes" : ["avatars/a","avatars/b"] }"#);
    world.change("rollout.percentage", "0").await;
    user.post("/storage/v1/object/list/media", r#"{"prefix":"covers"}"#).await.served_by(Side::Old);
    let seen = world.old.last();
    assert_eq!(
        (seen.target(), body_of(&seen)),
        ("/storage/v1/object/list/covers", json!({ "prefix": "" }))
    );
}

#[tokio::test]
async fn answers_name_what_was_asked_for() {
    let world = mapped().rollout(100).await;
    let user = world.as_user("ada");
    answers_json(&world.new, "200 OK", &json!({ "Id": "1", "Key": "media/avatars/a" }));
    let answer = user.post("/storage/v1/object/avatars/a", "bytes").await;
    assert_eq!(answer.json(), json!({ "Id": "1", "Key": "avatars/a" }));
    answers_json(&world.new, "200 OK", &json!([{ "name": "avatars/a", "bucket_id": "media" }]));
    let answer =
        user.ask("DELETE", "/storage/v1/object/avatars", Some(r#"{"prefixes":["a"]}"#)).await;
    assert_eq!(answer.json(), json!([{ "name": "a", "bucket_id": "avatars" }]));
    // A download that looks like JSON is the user's own.
    let own = json!({ "Key": "media/avatars/a", "name": "avatars/a" });
    answers_json(&world.new, "200 OK", &own);
    assert_eq!(user.get("/storage/v1/object/avatars/a").await.json(), own);
}

#[tokio::test]
async fn a_body_of_names_is_not_waited_for_without_end_nor_for_a_stranger() {
    let world = mapped().set("upstream.timeout", "\"300ms\"").await;
    let head = |client: Client| {
        let head = client.says("POST", "/storage/v1/object/list/avatars", None);
        head.replace("\r\n\r\n", "\r\ncontent-length: 100\r\n\r\n")
    };
    let mut conn = world.raw().await;
    conn.send(format!("{}{{", head(world.as_user("ada")))).await;
    conn.answer_to("POST").await.refused(408, "CUT408");
    let mut conn = world.raw().await;
    let stranger = world.client().without("apikey").with("apikey", "stranger");
    conn.send(head(stranger)).await;
    conn.answer_to("POST").await.refused(401, "CUT401");
    assert_eq!(world.old.count() + world.new.count(), 0);
}

#[tokio::test]
async fn bodies_that_name_buckets_are_bounded() {
    let world = mapped().set("limits.storage_body_bytes", "1024").rollout(100).await;
    let user = world.as_user("ada");
    let body = |length: usize| format!("{:length$}", r#"{"prefix":""}"#);
    user.post("/storage/v1/object/list/avatars", &body(1024)).await.served_by(Side::New);
    user.post("/storage/v1/object/list/avatars", &body(1025)).await.refused(413, "CUT413");
    user.post("/storage/v1/object/list/other", &body(5000)).await.served_by(Side::New);
    user.post("/storage/v1/object/avatars/x", &body(5000)).await.served_by(Side::New);
    // Chunks have no length that could be looked at before.
    let mut conn = world.raw().await;
    let head = user.says("POST", "/storage/v1/object/list/avatars", None);
    let head = head.replace("\r\n\r\n", "\r\ntransfer-encoding: chunked\r\n\r\n");
    conn.send(format!("{head}401\r\n{}\r\n0\r\n\r\n", body(1025))).await;
    conn.answer_to("POST").await.refused(413, "CUT413");
    let long = json!([{ "name": format!("avatars/{}", "x".repeat(2000)), "bucket_id": "media" }]);
    answers_json(&world.new, "200 OK", &long);
    let answer =
        user.ask("DELETE", "/storage/v1/object/avatars", Some(r#"{"prefixes":["a"]}"#)).await;
    assert_eq!(answer.json(), long, "too long to be restored: as it came");
    assert_eq!(world.metric("cutover_translations_left_alone_total", "").await, 1.0);
}

#[tokio::test]
async fn bodies_that_name_buckets_are_bounded_together_and_by_the_limit_of_all_bodies() {
    let world = mapped().set("workers", "1").set("limits.storage_body_bytes", "1024");
    let world = world.set("limits.storage_bodies_bytes", "2000").rollout(100).await;
    let user = world.as_user("ada");
    let body = |length: usize| format!("{:length$}", r#"{"prefix":""}"#);
    let list = "/storage/v1/object/list/avatars";
    // Two that have not ended.
    let head = user.says("POST", list, None);
    let head = head.replace("\r\n\r\n", "\r\ntransfer-encoding: chunked\r\n\r\n");
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut conn = world.raw().await;
        conn.send(format!("{head}3e8\r\n{}\r\n", body(1000))).await;
        held.push(conn);
    }
    eventually("no room", async || user.post(list, &body(13)).await.status == 503).await;
    user.post(list, &body(13)).await.refused(503, "CUT5031");
    user.post("/storage/v1/object/avatars/x", &body(5000)).await.served_by(Side::New);
    let mut first = held.pop().unwrap();
    first.send("0\r\n\r\n").await;
    first.answer_to("POST").await.served_by(Side::New);
    user.post(list, &body(1000)).await.served_by(Side::New);
    drop(held);
    eventually("room", async || user.post(list, &body(1024)).await.status == 200).await;
    // The limit of all bodies is one of these too, also where no length says so before.
    world.change("limits.body_bytes", "999").await;
    let mut conn = world.raw().await;
    conn.send(format!("{head}3e8\r\n{}\r\n0\r\n\r\n", body(1000))).await;
    conn.answer_to("POST").await.refused(413, "CUT413");
}

#[tokio::test]
async fn a_chunked_list_of_names_arrives_with_its_length() {
    let world = mapped().rollout(100).await;
    let mut conn = world.raw().await;
    let head = world.as_user("ada").says("POST", "/storage/v1/object/list/avatars", None);
    let head =
        head.replace("\r\n\r\n", "\r\nexpect: 100-continue\r\ntransfer-encoding: chunked\r\n\r\n");
    conn.send(head).await;
    assert!(conn.head().await.unwrap().start.contains(" 100 "), "asked for before the side is");
    conn.send("5\r\n{\"pre\r\n8\r\nfix\":\"\"}\r\n0\r\n\r\n").await;
    conn.answer_to("POST").await.served_by(Side::New);
    let seen = world.new.last();
    assert_eq!(seen.body.bytes, br#"{"prefix":"avatars"}"#);
    assert_eq!((seen.header("content-length"), seen.header("expect")), (Some("20"), None));
}

#[tokio::test]
async fn a_whole_bucket_that_is_a_folder_is_not_touched() {
    let world = mapped().rollout(100).await;
    let user = world.as_user("ada");
    for (method, path) in [
        ("POST", "/storage/v1/bucket/avatars/empty"),
        ("DELETE", "/storage/v1/bucket/avatars"),
        ("PUT", "/storage/v1/bucket/avatars"),
    ] {
        user.ask(method, path, Some("{}")).await.refused(422, "CUT4221");
    }
    assert_eq!(world.new.count(), 0);
    user.ask("DELETE", "/storage/v1/bucket/docs", None).await.served_by(Side::New);
    assert_eq!(world.new.last().target(), "/storage/v1/bucket/papers");
}

#[tokio::test]
async fn a_bucket_with_an_owner_is_its_owners() {
    let world = mapped()
        .set("storage.owners.avatars", "\"new\"")
        .set("storage.owners.papers", "\"old\"")
        .await;
    let user = world.as_user("ada");
    user.get("/storage/v1/object/avatars/x").await.served_by(Side::New);
    user.get("/storage/v1/object/media/avatars/x").await.served_by(Side::New);
    user.get("/storage/v1/object/covers/x").await.served_by(Side::Old);
    let within = r#"{"bucketId":"avatars","sourceKey":"a","destinationKey":"b"}"#;
    user.post("/storage/v1/object/copy", within).await.served_by(Side::New);
    let between =
        r#"{"bucketId":"avatars","sourceKey":"a","destinationBucket":"docs","destinationKey":"b"}"#;
    user.post("/storage/v1/object/move", between).await.refused(422, "CUT4222");
    let mine = user.with("upload-metadata", "bucketName YXZhdGFycw==,objectName eA==");
    mine.post("/storage/v1/upload/resumable", "").await.served_by(Side::New);
}

#[tokio::test]
async fn trap_28_a_signed_url_stays_with_its_issuer() {
    let world = mapped().rollout(100).await;
    let user = world.as_user("ada");
    let signed = json!({ "signedURL": "/object/sign/media/avatars/x?token=a.b.c" });
    answers_json(&world.new, "200 OK", &signed);
    let answer = user.post("/storage/v1/object/sign/avatars/x", r#"{"expiresIn":60}"#).await.json();
    let url = answer["signedURL"].as_str().unwrap().to_owned();
    assert!(url.starts_with("/object/sign/avatars/x?token=a.b.c."), "{url}");
    world.new.answers_as_usual();
    let nobody = world.client().without("apikey");
    for (key, value) in [("rollout.percentage", "0"), ("rollout.force", "\"old\"")] {
        world.change(key, value).await;
        nobody.get(&format!("/storage/v1{url}&download=")).await.served_by(Side::New);
        let target = "/storage/v1/object/sign/media/avatars/x?token=a.b.c&download=";
        assert_eq!(world.new.last().target(), target, "{key}");
    }
    // A mark that was made up is none.
    let forged = "/storage/v1/object/sign/avatars/x?token=a.b.c.nAAAAAAAAAAAAAAAA";
    nobody.get(forged).await.served_by(Side::Old);
    assert_eq!(world.old.last().target(), forged);
}

#[tokio::test]
async fn trap_28_a_signed_upload_stays_with_its_issuer() {
    let world = mapped().rollout(100).await;
    let signed =
        json!({ "url": "/object/upload/sign/media/avatars/x?token=a.b.c", "token": "a.b.c" });
    answers_json(&world.new, "200 OK", &signed);
    let user = world.as_user("ada");
    let answer = user.post("/storage/v1/object/upload/sign/avatars/x", "").await.json();
    let token = answer["token"].as_str().unwrap().to_owned();
    world.new.answers_as_usual();
    world.change("rollout.percentage", "0").await;
    let path = format!("/storage/v1/object/upload/sign/avatars/x?token={token}");
    user.ask("PUT", &path, Some("bytes")).await.served_by(Side::New);
    let target = "/storage/v1/object/upload/sign/media/avatars/x?token=a.b.c";
    assert_eq!(world.new.last().target(), target);
    let signature = user.with("x-signature", &token);
    signature.post("/storage/v1/upload/resumable/sign", "").await.served_by(Side::New);
    assert_eq!(world.new.last().header("x-signature"), Some("a.b.c"));
}

#[tokio::test]
async fn trap_39_a_resumable_upload_stays_where_it_began() {
    let world = mapped().set("storage.mark_key", "\"first-key-0123456789\"").rollout(100).await;
    world.new.answers(|_| {
        let headers =
            "location: http://storage:5000/upload/resumable/aWQ\r\ntus-resumable: 1.0.0\r\n";
        response("201 Created", headers, "")
    });
    let metadata = "bucketName YXZhdGFycw==,objectName eA==,contentType aW1hZ2U=";
    let user = world.as_user("ada").with("upload-metadata", metadata).with("upload-length", "9");
    let answer = user.post("/storage/v1/upload/resumable", "first").await;
    assert_eq!((answer.status, answer.header("tus-resumable")), (201, Some("1.0.0")));
    let seen = world.new.last();
    let said = "bucketName bWVkaWE=,objectName YXZhdGFycy94,contentType aW1hZ2U=";
    assert_eq!(seen.header("upload-metadata"), Some(said));
    assert_eq!((seen.header("upload-length"), &*seen.body.bytes), (Some("9"), &b"first"[..]));
    let location = answer.header("location").unwrap().to_owned();
    let path = location.strip_prefix("http://proxy.example").unwrap();
    assert!(path.starts_with("/storage/v1/upload/resumable/aWQ."), "{location}");

    world.new.answers_as_usual();
    world.change("rollout.percentage", "0").await;
    let check = async |world: &World, path: &str| {
        for method in ["HEAD", "PATCH", "DELETE", "OPTIONS", "POST"] {
            let client = world.as_user("ada").with("x-http-method-override", "PATCH");
            client.ask(method, path, None).await.served_by(Side::New);
            let seen = world.new.last();
            assert_eq!(
                (seen.method(), seen.target()),
                (method, "/storage/v1/upload/resumable/aWQ")
            );
        }
    };
    check(&world, path).await;
    // The key was rotated: the new one signs, the old one still counts.
    let both = r#"["second-key-9876543210", "first-key-0123456789"]"#;
    world.change("storage.mark_key", both).await;
    check(&world, path).await;
    // Another replica knows as much.
    let other = World::start().set("storage.mark_key", both).await;
    check(&other, path).await;
    let stranger = World::start().set("storage.mark_key", "\"unrelated-key-0123456\"").await;
    stranger.as_user("ada").ask("PATCH", path, None).await.served_by(Side::Old);
    assert_eq!(stranger.old.last().target(), path, "no mark of ours: as it came");
}

#[tokio::test]
async fn trap_30_what_one_side_does_not_have_is_asked_of_the_other() {
    let world = mapped().rollout(100).await;
    not_found(&world.new);
    let user = world.as_user("ada").with("range", "bytes=0-9").with("if-none-match", "\"e\"");
    let answer = user.get("/storage/v1/object/avatars/x?a=b").await;
    answer.served_by(Side::Old);
    assert_eq!(answer.header("x-cutover-side"), Some("old"));
    let seen = world.old.last();
    assert_eq!(seen.target(), "/storage/v1/object/avatars/x?a=b", "in the other side's words");
    assert_eq!(
        (seen.header("range"), seen.header("if-none-match")),
        (Some("bytes=0-9"), Some("\"e\""))
    );
    assert_eq!(seen.header("apikey"), Some(ANON_OLD));
    assert_eq!(world.new.last().header("apikey"), Some(ANON_NEW));
    user.ask("HEAD", "/storage/v1/object/avatars/x", None).await.served_by(Side::Old);
    user.get("/storage/v1/object/public/avatars/x").await.served_by(Side::Old);
    assert_eq!(world.metric("cutover_storage_found_elsewhere_total", "side=\"old\"").await, 3.0);
    assert_eq!(
        world.metric("cutover_decisions_total", "side=\"new\"").await,
        3.0,
        "decided for new"
    );
    // What the other side says about a range is said by who has the object.
    world
        .old
        .answers(|_| response("416 Range Not Satisfiable", "content-range: bytes */3\r\n", ""));
    let answer = user.get("/storage/v1/object/avatars/x").await;
    assert_eq!((answer.status, answer.header("content-range")), (416, Some("bytes */3")));
    // If neither has it, the client sees its own side's answer.
    answers_json(&world.old, "404 Not Found", &json!({ "message": "old's" }));
    let answer = user.get("/storage/v1/object/avatars/x").await;
    assert_eq!((answer.status, answer.json()["statusCode"].as_str()), (400, Some("404")));
    assert_eq!(world.metric("cutover_storage_found_elsewhere_total", "").await, 4.0);
}

#[tokio::test]
async fn only_a_real_not_found_of_a_read_is_asked_of_the_other() {
    let world = mapped().set("storage.owners.docs", "\"new\"").rollout(100).await;
    let user = world.as_user("ada");
    not_found(&world.new);
    for (method, path) in [
        ("POST", "/storage/v1/object/avatars/x"),
        ("DELETE", "/storage/v1/object/avatars/x"),
        ("POST", "/storage/v1/object/list/avatars"),
        ("GET", "/storage/v1/object/docs/x"),
        ("GET", "/storage/v1/bucket/avatars"),
    ] {
        let body = (method == "POST").then_some(r#"{"prefix":""}"#);
        assert_eq!(user.ask(method, path, body).await.status, 400, "{method} {path}");
    }
    for inside in ["403", "409", "400", "500"] {
        answers_json(&world.new, "400 Bad Request", &json!({ "statusCode": inside, "error": "x" }));
        assert_eq!(user.get("/storage/v1/object/avatars/x").await.status, 400);
    }
    not_found(&world.new);
    for (key, value) in [("rollout.force", "\"new\""), ("storage.fallback", "false")] {
        world.change(key, value).await;
        assert_eq!(user.get("/storage/v1/object/avatars/x").await.status, 400, "{key}");
    }
    world.change("rollout.force", "\"\"").await;
    world.change("storage.fallback", "true").await;
    world.change("routes.storage", "\"new\"").await;
    assert_eq!(user.get("/storage/v1/object/avatars/x").await.status, 400);
    assert_eq!(world.old.count(), 0);
    world.change("routes.storage", "\"rollout\"").await;
    user.get("/storage/v1/object/avatars/x").await.served_by(Side::Old);
}

#[tokio::test]
async fn a_url_signed_before_there_were_marks_is_tried_on_old_first() {
    let world = World::start().rollout(100).await;
    let url = "/storage/v1/object/sign/b/x?token=a.b.c";
    world.client().get(url).await.served_by(Side::Old);
    let foreign = json!({ "statusCode": "400", "code": "InvalidJWT", "error": "InvalidJWT", "message": "signature verification failed" });
    answers_json(&world.old, "400 Bad Request", &foreign);
    world.client().get(url).await.served_by(Side::New);
    let put = "/storage/v1/object/upload/sign/b/x?token=a.b.c";
    assert_eq!(world.client().ask("PUT", put, Some("x")).await.status, 400, "never a write");
    // Force doesn't move it, and there is no other side while it stands.
    let before = world.new.count();
    world.change("rollout.force", "\"old\"").await;
    assert_eq!(world.client().get(url).await.status, 400);
    assert_eq!(world.new.count(), before);
}

#[tokio::test]
async fn when_the_other_side_can_not_be_reached_the_first_answer_stands() {
    let world = World::start().set("projects.new.url", "\"http://127.0.0.1:1\"").await;
    not_found(&world.old);
    let answer = world.as_user("ada").get("/storage/v1/object/b/x").await;
    assert_eq!((answer.status, answer.json()["error"].as_str()), (400, Some("not_found")));
    assert_eq!(world.metric("cutover_requests_total", "side=\"old\"").await, 1.0);
}

#[tokio::test]
async fn trap_29_s3_is_refused_or_sealed() {
    let world = mapped().await;
    let client = world.client().without("apikey").with(
        "authorization",
        "AWS4-HMAC-SHA256 Credential=k/20260101/r/s3/aws4_request, SignedHeaders=host, Signature=ab",
    );
    client.get("/storage/v1/s3/avatars/x").await.refused(501, "CUT501");
    client.get("/storage/v1/vector/x").await.refused(501, "CUT501");
    world.change("storage.s3", "\"new\"").await;
    let client = client.with("apikey", ANON_OLD).with("accept-encoding", "zstd");
    client
        .ask("PUT", "/storage/v1/s3/avatars/a%2Fb?x-id=PutObject", Some("bytes"))
        .await
        .served_by(Side::New);
    let seen = world.new.last();
    assert_eq!(seen.target(), "/storage/v1/s3/avatars/a%2Fb?x-id=PutObject");
    assert_eq!(
        (seen.header("apikey"), seen.header("accept-encoding")),
        (Some(ANON_OLD), Some("zstd"))
    );
    assert!(seen.header("authorization").unwrap().ends_with("Signature=ab"));
}

#[tokio::test]
async fn trap_31_uploads_and_downloads_flow_while_they_are_under_way() {
    let world = mapped().rollout(100).await;
    // The side answers while the upload is still coming, and the upload is seen piece by piece.
    world.new.does(|_, mut conn: Conn| async move {
        assert_eq!(conn.chunk().await, b"first");
        conn.send("HTTP/1.1 206 Partial Content\r\ncontent-type: image/png\r\netag: \"e\"\r\ncontent-range: bytes 0-9/10\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n").await;
        assert_eq!(conn.chunk().await, b"second");
        assert_eq!(conn.chunk().await, b"");
        conn.send("3\r\nend\r\n0\r\n\r\n").await;
        Some(conn)
    });
    let mut conn = world.raw().await;
    let head = world.as_user("ada").says("POST", "/storage/v1/object/avatars/x", None);
    conn.send(head.replace("\r\n\r\n", "\r\ntransfer-encoding: chunked\r\n\r\n")).await;
    conn.send("5\r\nfirst\r\n").await;
    let head = conn.answer_head().await;
    assert_eq!(
        (head.get("etag"), head.get("content-range")),
        (Some("\"e\""), Some("bytes 0-9/10"))
    );
    assert_eq!(conn.chunk().await, b"half", "before the upload has ended");
    conn.send("6\r\nsecond\r\n0\r\n\r\n").await;
    assert_eq!(conn.chunk().await, b"end");
}
