//! Edge functions: their names on either side, owners by name, bytes untouched.

use cutover::side::Side;

use crate::support::world::{ANON_OLD, Setup, World};

fn world() -> Setup {
    World::start()
        .set("functions.names.memory-create", "\"memory/create\"")
        .set("functions.owners.stripe-webhook", "\"old\"")
        .set("functions.owners.memory-create", "\"new\"")
}

#[tokio::test]
async fn names_are_the_sides_own_and_whatever_follows_stays() {
    for (percentage, side) in [(0, Side::Old), (100, Side::New)] {
        let world = World::start()
            .rollout(percentage)
            .set("functions.names.memory-create", "\"memory/create\"")
            .await;
        for name in ["memory-create", "memory/create"] {
            let path = format!("/functions/v1/{name}/a%2Fb?forceFunctionRegion=eu-west-1&x=+");
            world.as_user("ada").post(&path, "{}").await.served_by(side);
            let own = if side == Side::Old { "memory-create" } else { "memory/create" };
            let want = format!("/functions/v1/{own}/a%2Fb?forceFunctionRegion=eu-west-1&x=+");
            assert_eq!(world.side(side).last().target(), want);
        }
    }
}

#[tokio::test]
async fn trap_40_a_webhook_without_a_key_goes_to_its_owner_byte_for_byte() {
    let world = world().rollout(100).await;
    let body = "{ \"id\" :\"evt_1\", \"amount\":1.0 }\r\n";
    let answer = world
        .client()
        .without("apikey")
        .with("stripe-signature", "t=1,v1=abc")
        .post("/functions/v1/stripe-webhook", body)
        .await;
    answer.served_by(Side::Old);
    assert_eq!(answer.header("x-cutover-reason"), Some("owner"));
    let seen = world.old.last();
    assert_eq!(
        (seen.body.bytes.as_slice(), seen.header("stripe-signature")),
        (body.as_bytes(), Some("t=1,v1=abc"))
    );
    assert_eq!((seen.header("apikey"), seen.header("authorization")), (None, None));
}

#[tokio::test]
async fn an_owner_holds_by_either_name_whatever_the_percentage_and_force_moves_it() {
    let world = world().rollout(0).await;
    for path in ["/functions/v1/memory-create", "/functions/v1/memory/create/x"] {
        world.as_user("ada").post(path, "{}").await.served_by(Side::New);
    }
    world.as_user("ada").post("/functions/v1/other", "{}").await.served_by(Side::Old);
    world.change("rollout.force", "\"old\"").await;
    world.as_user("ada").post("/functions/v1/memory-create", "{}").await.served_by(Side::Old);
    assert_eq!(world.old.last().header("apikey"), Some(ANON_OLD));
}

#[tokio::test]
async fn trap_16_a_function_is_never_asked_twice() {
    let world = World::start().await;
    world.client().get("/functions/v1/f").await.served_by(Side::Old);
    world.old.does(|_, _| async { None });
    world.client().get("/functions/v1/f").await.refused(502, "CUT5021");
    assert_eq!(world.old.seen().len(), 2, "one for each that was asked");
}
