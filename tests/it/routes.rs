//! Which paths are served, by whom; CORS.

use cutover::side::Side;

use crate::support::upstream::response;
use crate::support::world::World;

#[tokio::test]
async fn trap_44_paths_outside_the_table_are_404_with_a_body() {
    let world = World::start().await;
    for path in [
        "/",
        "/pg/tables",
        "/analytics/v1",
        "/mcp",
        "/api/mcp",
        "/rest/v10/todos",
        "/REST/v1/todos",
        "/realtime/v1/api/tenants",
        "/realtime/v1/api/tenants/x",
        "//rest/v1/todos",
        "/rest-admin/v1/live",
    ] {
        let answer = world.client().get(path).await;
        answer.refused(404, "CUT404");
        assert!(answer.json().is_object(), "{path}");
    }
    assert_eq!(world.client().ask("HEAD", "/nothing", None).await.status, 404);
    assert_eq!((world.old.count(), world.new.count()), (0, 0));
}

#[tokio::test]
async fn dot_segments_are_400_however_they_are_written() {
    let world = World::start().await;
    for path in [
        "/rest/v1/../../pg/x",
        "/rest/v1/./todos",
        "/rest/v1/%2e%2e/auth",
        "/rest/v1/.%2E/x",
        "/storage/v1/object/b/a%2f..%2fc",
        "/storage/v1/object/b/a\\..\\c",
        "/storage/v1/object/b/%5c..",
    ] {
        world.client().get(path).await.refused(400, "CUT4001");
    }
    assert_eq!(world.old.count(), 0);
}

#[tokio::test]
async fn connect_and_trace_are_not_served() {
    let world = World::start().await;
    for method in ["TRACE", "CONNECT"] {
        let mut conn = world.raw().await;
        conn.send(world.client().says(method, "/rest/v1/todos", None)).await;
        let answer = conn.answer().await;
        assert!((400..500).contains(&answer.status), "{answer:?}");
    }
    assert_eq!(world.old.count(), 0);
}

const OWNED: [(&str, &str); 5] = [
    ("auth", "/auth/v1/user"),
    ("storage", "/storage/v1/object/b/a"),
    ("functions", "/functions/v1/f"),
    ("realtime", "/realtime/v1/api/broadcast"),
    ("graphql", "/graphql/v1"),
];

#[tokio::test]
async fn owners_serve_their_routes_whatever_the_percentage() {
    let mut setup = World::start().rollout(100);
    for (route, _) in OWNED {
        setup = setup.set(&format!("routes.{route}"), "\"old\"");
    }
    let world = setup.await;
    let user = world.as_user("ada");
    user.get("/rest/v1/todos").await.served_by(Side::New);
    for (_, path) in OWNED {
        let answer = user.post(path, "{}").await;
        answer.served_by(Side::Old);
        assert_eq!(answer.header("x-cutover-reason"), Some("owner"));
        let seen = world.old.last();
        assert_eq!((seen.target(), seen.header("accept-profile")), (path, None));
    }
    let mut setup = World::start().rollout(0);
    for (route, _) in OWNED {
        setup = setup.set(&format!("routes.{route}"), "\"new\"");
    }
    let world = setup.await;
    for (_, path) in OWNED {
        world.as_user("ada").post(path, "{}").await.served_by(Side::New);
    }
    world.as_user("ada").get("/rest/v1/todos").await.served_by(Side::Old);
}

#[tokio::test]
async fn force_moves_every_route_but_auth_and_what_a_side_issued() {
    let world = World::start().set("rollout.force", "\"new\"").await;
    let user = world.as_user("ada");
    for (route, path) in OWNED {
        let side = if route == "auth" { Side::Old } else { Side::New };
        user.post(path, "{}").await.served_by(side);
    }
    user.get("/rest/v1/todos").await.served_by(Side::New);
    user.get("/storage/v1/object/sign/b/a?token=x").await.served_by(Side::Old);
    user.ask("PATCH", "/storage/v1/upload/resumable/abc", Some("x")).await.served_by(Side::Old);
}

#[tokio::test]
async fn preflights_are_answered_here() {
    let world = World::start().rollout(100).await;
    let browser = world
        .client()
        .without("apikey")
        .with("origin", "https://app.example")
        .with("access-control-request-method", "POST")
        .with("access-control-request-headers", "authorization, x-new");
    for path in ["/rest/v1/todos", "/auth/v1/token", "/storage/v1/object/b/a", "/functions/v1/f"] {
        let answer = browser.ask("OPTIONS", path, None).await;
        assert_eq!(answer.status, 204, "{path}");
        assert_eq!(answer.head.all("access-control-allow-origin"), ["*"]);
        assert_eq!(answer.header("access-control-allow-headers"), Some("authorization, x-new"));
        assert!(answer.header("access-control-allow-methods").unwrap().contains("PATCH"));
    }
    assert_eq!((world.old.count(), world.new.count()), (0, 0));
    // A plain OPTIONS is a request like any other.
    world.client().ask("OPTIONS", "/rest/v1/todos", None).await;
    assert_eq!(world.old.count() + world.new.count(), 1);
}

#[tokio::test]
async fn upstream_cors_headers_are_replaced_on_every_status() {
    let world = World::start().set("cors.origins", "[\"https://app.example\"]").await;
    for status in ["200 OK", "204 No Content", "304 Not Modified", "404 Not Found"] {
        let headers = "access-control-allow-origin: *\r\naccess-control-allow-origin: https://x\r\naccess-control-allow-methods: GET\r\naccess-control-allow-credentials: true\r\n";
        let text = if status.starts_with('2') && !status.starts_with("204") {
            response(status, headers, "{}")
        } else if status.starts_with('4') {
            response(status, &format!("{headers}content-type: application/json\r\n"), "{}")
        } else {
            format!("HTTP/1.1 {status}\r\n{headers}\r\n")
        };
        world.old.answers(move |_| text.clone());
        let answer =
            world.client().with("origin", "https://app.example").get("/rest/v1/todos").await;
        assert_eq!(
            answer.head.all("access-control-allow-origin"),
            ["https://app.example"],
            "{status}"
        );
        assert_eq!(answer.header("access-control-allow-credentials"), None, "{status}");
        assert!(answer.header("access-control-expose-headers").unwrap().contains("Content-Range"));
        let other = world.client().with("origin", "https://evil").get("/rest/v1/todos").await;
        assert_eq!(other.header("access-control-allow-origin"), None, "{status}");
    }
}

#[tokio::test]
async fn trap_04_a_side_sees_its_own_host_and_nothing_of_the_proxys() {
    for (percentage, side) in [(0, Side::Old), (100, Side::New)] {
        let world = World::start().rollout(percentage).await;
        for path in ["/rest/v1/todos", "/storage/v1/object/b/a", "/functions/v1/f", "/auth/v1/user"]
        {
            let side = if path.starts_with("/auth") { Side::Old } else { side };
            let client = world.as_user("ada").with("x-forwarded-host", "proxy.example");
            client.get(path).await.served_by(side);
            let seen = world.side(side).last();
            assert_eq!(seen.header("host"), Some(world.side(side).address.to_string().as_str()));
            assert_eq!((seen.header("x-forwarded-host"), seen.header("forwarded")), (None, None));
        }
    }
}

#[tokio::test]
async fn trap_41_graphql_has_one_owner_and_passes_as_it_is_where_it_is_split() {
    let body = "{\"query\":\"{ vendorApiKeysCollection { edges { node { nodeId } } } }\"}";
    let world = World::start().rollout(100).await;
    world.as_user("ada").post("/graphql/v1", body).await.served_by(Side::Old);
    world.change("routes.graphql", "\"rollout\"").await;
    world.as_user("ada").post("/graphql/v1", body).await.served_by(Side::New);
    let seen = world.new.last();
    assert_eq!((seen.target(), seen.body.bytes.as_slice()), ("/graphql/v1", body.as_bytes()));
    assert_eq!(seen.header("content-profile"), None);
    // Whether it was a mutation shows only in the document: it is never asked twice.
    world.new.does(|_, _| async { None });
    world.as_user("ada").post("/graphql/v1", body).await.refused(502, "CUT5021");
    assert_eq!(world.new.count(), 2);
}
