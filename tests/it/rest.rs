//! PostgREST through the proxy: profiles by method, and answers in the client's own dialect.

use std::io::Write as _;

use cutover::side::Side;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::json;

use crate::support::eventually;
use crate::support::upstream::response;
use crate::support::world::World;

#[tokio::test]
async fn trap_05_the_profile_header_follows_the_method_and_the_other_one_is_dropped() {
    let world = World::start().rollout(100).await;
    let user =
        world.as_user("ada").with("accept-profile", "public").with("content-profile", "public");
    for (method, used, dropped) in [
        ("GET", "accept-profile", "content-profile"),
        ("HEAD", "accept-profile", "content-profile"),
        ("OPTIONS", "accept-profile", "content-profile"),
        ("POST", "content-profile", "accept-profile"),
        ("PATCH", "content-profile", "accept-profile"),
        ("PUT", "content-profile", "accept-profile"),
        ("DELETE", "content-profile", "accept-profile"),
    ] {
        assert_eq!(user.ask(method, "/rest/v1/vendor_api_keys", None).await.side(), Side::New);
        let seen = world.new.last();
        assert_eq!(seen.head.all(used), ["vendors"], "{method}");
        assert_eq!(seen.header(dropped), None, "{method}");
        assert_eq!(seen.target(), "/rest/v1/api_keys");
    }
}

#[tokio::test]
async fn trap_06_a_missing_profile_is_said_explicitly_on_both_sides() {
    for (percentage, side, profile) in [(0, Side::Old, "public"), (100, Side::New, "app")] {
        let world = World::start().rollout(percentage).await;
        world.as_user("ada").get("/rest/v1/todos").await.served_by(side);
        assert_eq!(world.side(side).last().header("accept-profile"), Some(profile));
        world.as_user("ada").post("/rest/v1/rpc/match_memories", "{}").await.served_by(side);
        let want = if side == Side::Old { "public" } else { "security_service" };
        assert_eq!(world.side(side).last().header("content-profile"), Some(want));
    }
}

#[tokio::test]
async fn the_new_dialect_works_on_the_old_side() {
    let world = World::start().await;
    let user = world.as_user("ada").with("accept-profile", "vendors");
    user.get("/rest/v1/api_keys?select=id&order=id.desc").await.served_by(Side::Old);
    let seen = world.old.last();
    assert_eq!(seen.target(), "/rest/v1/vendor_api_keys?select=id&order=id.desc");
    assert_eq!(seen.header("accept-profile"), Some("public"));
}

#[tokio::test]
async fn answers_name_what_the_client_named() {
    let world = World::start().rollout(100).await;
    world.new.answers(|_| {
        response(
            "201 Created",
            "x-upstream: new\r\ncontent-profile: vendors\r\nlocation: /api_keys?id=eq.1\r\ncontent-location: /api_keys?select=id\r\ncontent-range: */*\r\n",
            "[]",
        )
    });
    let answer = world.as_user("ada").post("/rest/v1/vendor_api_keys", "{}").await;
    assert_eq!(answer.header("content-profile"), Some("public"));
    assert_eq!(answer.header("location"), Some("/vendor_api_keys?id=eq.1"));
    assert_eq!(answer.header("content-location"), Some("/vendor_api_keys?select=id"));
    assert_eq!(answer.header("content-range"), Some("*/*"));
}

#[tokio::test]
async fn trap_11_errors_speak_the_clients_dialect_compressed_or_not() {
    let world = World::start().rollout(100).await;
    let text = json!({
        "code": "PGRST205", "details": null, "hint": null,
        "message": "Could not find the table 'vendors.api_keys' in the schema cache",
    })
    .to_string();
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(text.as_bytes()).unwrap();
    for (encoding, bytes) in
        [("", text.into_bytes()), ("content-encoding: gzip\r\n", encoder.finish().unwrap())]
    {
        for is_chunked in [false, true] {
            let bytes = bytes.clone();
            world.new.does(move |_, mut conn| {
                let bytes = bytes.clone();
                async move {
                    let (framing, begin, end) = if is_chunked {
                        ("transfer-encoding: chunked", format!("{:x}\r\n", bytes.len()), "\r\n0\r\n\r\n")
                    } else {
                        (&*format!("content-length: {}", bytes.len()), String::new(), "")
                    };
                    conn.send(format!("HTTP/1.1 404 Not Found\r\ncontent-type: application/json; charset=utf-8\r\nproxy-status: PostgREST; error=PGRST205\r\n{encoding}{framing}\r\n\r\n{begin}")).await;
                    conn.send(&bytes).await;
                    conn.send(end).await;
                    Some(conn)
                }
            });
            let client = world.as_user("ada").with("accept-encoding", "gzip");
            let answer = client.get("/rest/v1/vendor_api_keys").await;
            assert_eq!(answer.status, 404);
            assert_eq!(
                answer.json()["message"],
                "Could not find the table 'public.vendor_api_keys' in the schema cache",
                "{encoding} {is_chunked}"
            );
            assert_eq!(answer.header("proxy-status"), Some("PostgREST; error=PGRST205"));
            assert_eq!(answer.header("content-encoding"), None);
        }
    }
}

#[tokio::test]
async fn trap_11_the_list_of_exposed_schemas_never_leaks() {
    let world = World::start().rollout(100).await;
    for body in [
        json!({ "code": "PGRST106", "details": null, "hint": null, "message": "The schema must be one of the following: public, vendors, app" }),
        json!({ "code": "PGRST106", "details": null, "hint": "Only the following schemas are exposed: public, vendors", "message": "Invalid schema: app" }),
    ] {
        world.new.answers(move |_| {
            response("406 Not Acceptable", "content-type: application/json\r\n", &body.to_string())
        });
        let answer = world.as_user("ada").get("/rest/v1/todos").await;
        assert_eq!((answer.status, answer.json()["code"].as_str()), (406, Some("PGRST106")));
        assert!(!answer.text().contains("vendors"), "{}", answer.text());
    }
}

#[tokio::test]
async fn trap_12_a_300_with_candidates_passes_in_the_clients_dialect() {
    let world = World::start().rollout(100).await;
    let body = json!({
        "code": "PGRST201", "message": "Could not embed because more than one relationship was found for 'api_keys' and 'organizations'",
        "details": [{ "relationship": "x", "cardinality": "many-to-one", "embedding": "api_keys with organizations" }], "hint": "Try",
    });
    world.new.answers(move |_| {
        response("300 Multiple Choices", "content-type: application/json\r\n", &body.to_string())
    });
    let answer = world.as_user("ada").get("/rest/v1/vendor_api_keys").await;
    assert_eq!((answer.status, answer.json()["code"].as_str()), (300, Some("PGRST201")));
    assert_eq!(world.new.count(), 1);
}

#[tokio::test]
async fn trap_38_a_head_with_an_error_keeps_its_headers() {
    let world = World::start().rollout(100).await;
    world.new.answers(|_| {
        response(
            "404 Not Found",
            "content-type: application/json\r\nproxy-status: PostgREST; error=PGRST205\r\n",
            "{\"code\":\"PGRST205\"}",
        )
    });
    let mut conn = world.raw().await;
    for _ in 0..2 {
        conn.send(world.as_user("ada").says("HEAD", "/rest/v1/todos", None)).await;
        let answer = conn.answer_to("HEAD").await;
        assert_eq!(answer.status, 404);
        assert_eq!(answer.header("proxy-status"), Some("PostgREST; error=PGRST205"));
    }
}

#[tokio::test]
async fn an_error_body_beyond_the_limit_passes_as_it_is() {
    let world = World::start().set("limits.error_body_bytes", "1024").await;
    for framing in ["known", "chunked"] {
        let long = "x".repeat(5000);
        let text = match framing {
            "known" => {
                response("500 Internal Server Error", "content-type: application/json\r\n", &long)
            }
            _ => format!(
                "HTTP/1.1 500 Internal Server Error\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n1388\r\n{long}\r\n0\r\n\r\n"
            ),
        };
        world.old.answers(move |_| text.clone());
        let answer = world.client().get("/rest/v1/todos").await;
        assert_eq!(
            (answer.status, answer.body.bytes.len(), answer.body.is_whole),
            (500, 5000, true),
            "{framing}"
        );
    }
}

#[tokio::test]
async fn debug_headers_are_ours_alone_and_only_when_asked_for() {
    for is_on in [true, false] {
        let world = World::start().set("debug_headers", if is_on { "true" } else { "false" }).await;
        world.old.answers(|_| {
            response("200 OK", "x-cutover-side: evil\r\nx-cutover-epoch: 999\r\n", "{}")
        });
        let answer = world.as_user("ada").get("/rest/v1/todos").await;
        if is_on {
            assert_eq!(answer.head.all("x-cutover-side"), ["old"]);
            assert_eq!(answer.header("x-cutover-reason"), Some("percentage"));
            assert_eq!(answer.header("x-cutover-bucket"), Some("3375"));
            assert_eq!(answer.header("x-cutover-epoch"), Some("1"));
        } else {
            assert!(answer.head.headers.iter().all(|(name, _)| !name.starts_with("x-cutover")));
        }
    }
}

#[tokio::test]
async fn unmapped_tables_are_404_json_when_refused() {
    let world = World::start().rollout(100).set("schema.unmapped", "\"refuse\"").await;
    world.as_user("ada").get("/rest/v1/unheard_of").await.refused(404, "CUT4041");
    assert_eq!(world.new.count(), 0);
}

#[tokio::test]
async fn requests_are_counted_by_table_and_a_reload_neither_loses_nor_mixes_them() {
    let world = World::start().set("workers", "2").await;
    let count = async |kind: &str, name: &str, side: &str| {
        let labels = format!("kind=\"{kind}\",name=\"{name}\",side=\"{side}\"");
        world.metric("cutover_resource_requests_total", &labels).await
    };
    let user = world.as_user("ada");
    user.get("/rest/v1/vendor_api_keys").await.served_by(Side::Old);
    // Another dialect, the same table.
    user.clone().with("accept-profile", "vendors").get("/rest/v1/api_keys").await;
    user.post("/rest/v1/rpc/match_memories", "{}").await.served_by(Side::Old);
    user.get("/rest/v1/nobody_knows").await.served_by(Side::Old);
    user.get("/rest/v1/").await.served_by(Side::Old);
    eventually("the last one to be counted", async || count("table", "other", "old").await == 1.0)
        .await;
    assert_eq!(count("table", "vendor_api_keys", "old").await, 2.0);
    assert_eq!(count("function", "match_memories", "old").await, 1.0);
    // A map with other lines before it, and then the old one again.
    world.change("schema.tables.a_new_one", "\"app\"").await;
    world.change("rollout.percentage", "100").await;
    user.get("/rest/v1/vendor_api_keys").await.served_by(Side::New);
    user.get("/rest/v1/a_new_one").await.served_by(Side::New);
    eventually("the new one", async || count("table", "a_new_one", "new").await == 1.0).await;
    assert_eq!(count("table", "vendor_api_keys", "new").await, 1.0);
    assert_eq!(count("table", "vendor_api_keys", "old").await, 2.0);
    assert_eq!(world.metric("cutover_resource_requests_total", "").await, 6.0);
    assert!(!world.metrics().await.contains("nobody_knows"));
}
