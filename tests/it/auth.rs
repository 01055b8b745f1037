//! The auth service: one owner, nothing sent twice, and no answer that would end a session.

use cutover::side::Side;

use crate::support::upstream::response;
use crate::support::world::{ANON_OLD, World, token_of};

#[tokio::test]
async fn trap_18_one_owner_answers_everybody_and_can_be_switched_live() {
    let world = World::start().rollout(100).await;
    let user = world.as_user("ada");
    for path in ["/auth/v1/token?grant_type=refresh_token", "/auth/v1/user"] {
        user.post(path, "{}").await.served_by(Side::Old);
    }
    world.change("routes.auth", "\"new\"").await;
    user.post("/auth/v1/token?grant_type=refresh_token", "{}").await.served_by(Side::New);
}

#[tokio::test]
async fn trap_33_published_keys_are_the_owners_for_everybody() {
    for (owner, side) in [("\"old\"", Side::Old), ("\"new\"", Side::New)] {
        for percentage in [0, 100] {
            let world = World::start().rollout(percentage).set("routes.auth", owner).await;
            for path in ["jwks.json", "openid-configuration", "oauth-authorization-server"] {
                let path = format!("/auth/v1/.well-known/{path}");
                world.client().without("apikey").get(&path).await.served_by(side);
                world.as_user("ada").get(&path).await.served_by(side);
            }
        }
    }
}

#[tokio::test]
async fn trap_19_an_owner_that_is_away_is_502_or_504_in_json_and_nothing_else() {
    let pages = [
        ("520 Unknown", "content-type: text/html\r\nretry-after: 7\r\n", "<html>"),
        ("500 Internal Server Error", "content-type: text/html; charset=utf-8\r\n", "<html>"),
        ("503 Service Unavailable", "", ""),
        ("530 Frozen", "content-type: text/plain\r\n", "error code: 1016"),
    ];
    let world = World::start().await;
    for (status, headers, body) in pages {
        world.old.answers(move |_| response(status, headers, body));
        let answer = world.client().post("/auth/v1/token?grant_type=refresh_token", "{}").await;
        answer.refused(502, "CUT5022");
        assert_eq!(answer.header("retry-after"), headers.contains("retry").then_some("7"));
    }
    // What the auth service says itself is passed on, whatever it is.
    let own = "{\"code\":500,\"error_code\":\"unexpected_failure\"}";
    let json = "content-type: application/json\r\n";
    world.old.answers(move |_| response("500 Internal Server Error", json, own));
    let answer = world.client().post("/auth/v1/token", "{}").await;
    assert_eq!((answer.status, answer.text().as_str()), (500, own));
    // On other routes a page is a page.
    world.old.answers(|_| response("520 Unknown", "content-type: text/html\r\n", "<html>"));
    assert_eq!(world.client().get("/functions/v1/f").await.status, 520);
}

#[tokio::test]
async fn trap_16_a_refresh_is_sent_once_whatever_happens() {
    let world = World::start().set("upstream.timeout", "\"2s\"").await;
    let refresh = "/auth/v1/token?grant_type=refresh_token";
    // A kept connection, so that there would be something to try again.
    world.client().post(refresh, "{}").await.served_by(Side::Old);
    world.old.does(|_, _| async { None });
    world.client().post(refresh, "{}").await.refused(502, "CUT5021");
    world.old.does(|_, held| async move {
        std::future::pending::<()>().await;
        Some(held)
    });
    world.client().post(refresh, "{}").await.refused(504, "CUT504");
    assert_eq!(world.old.seen().len(), 3, "one for each that was asked");
}

#[tokio::test]
async fn trap_13_locations_change_only_where_they_name_the_project_itself() {
    let world = World::start().await;
    let project = world.old.address.to_string();
    for (theirs, ours) in [
        (format!("http://{project}/auth/v1/callback?code=1#x"), "http://proxy.example/auth/v1/callback?code=1#x".to_owned()),
        ("https://accounts.example/o?redirect_uri=https%3A%2F%2Fref.supabase.co%2Fauth%2Fv1%2Fcallback".to_owned(), String::new()),
        ("https://app.example/#access_token=a&refresh_token=b".to_owned(), String::new()),
        ("/relative?x=1".to_owned(), String::new()),
    ] {
        let location = theirs.clone();
        world.old.answers(move |_| response("302 Found", &format!("location: {location}\r\n"), ""));
        let answer = world.client().get("/auth/v1/authorize?provider=github").await;
        let want = if ours.is_empty() { &theirs } else { &ours };
        assert_eq!((answer.status, answer.header("location")), (302, Some(want.as_str())));
    }
}

#[tokio::test]
async fn trap_20_a_hosted_project_learns_the_clients_address_and_nobody_a_secret_key() {
    let anon = token_of(&serde_json::json!({ "role": "anon", "ref": "old" }));
    let world = World::start()
        .set("auth.client_address", "\"sb-forwarded-for\"")
        .set("projects.old.anon_key", &format!("[{ANON_OLD:?}, {anon:?}]"))
        .set("projects.old.service_role_key", "\"sb_secret_server\"")
        .await;
    let seen = async |path: &str| {
        world
            .client()
            .with("sb-forwarded-for", "6.6.6.6")
            .post(path, "{}")
            .await
            .served_by(Side::Old);
        let seen = world.old.last();
        let text = |name: &str| seen.header(name).map(str::to_owned);
        (text("apikey"), text("sb-forwarded-for"), text("authorization"))
    };
    let (apikey, address, authorization) = seen("/auth/v1/token?grant_type=password").await;
    assert_eq!(apikey.as_deref(), Some("sb_secret_server"));
    assert_eq!(address.as_deref(), Some("127.0.0.1"));
    // A key of three parts comes first in the list of those that are JWTs.
    assert!(
        authorization
            .is_some_and(|bearer| bearer.starts_with("Bearer ") && !bearer.contains("sb_"))
    );
    for path in ["/auth/v1/admin/users", "/auth/v1/invite", "/auth/v1/user"] {
        let (apikey, address, _) = seen(path).await;
        assert_eq!((apikey.as_deref(), address), (Some(ANON_OLD), None), "{path}");
    }
}
