use std::sync::Arc;

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::identify::claims::TokenFacts;

const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 7));

fn settings(percentage: &str) -> Settings {
    Settings {
        percentage: percentage.parse().unwrap(),
        force: None,
        salt: "onasis-core-v2".into(),
        hash: Hash::Sha256,
        service_role: Side::Old,
        anonymous: Anonymous::Sticky,
        pins: HashMap::default(),
        rules: Vec::new(),
        wanted: Wanted::default(),
        domains: HashMap::default(),
        override_token: None,
        owners: Owners::from_fn(|route| match route {
            Route::Rest => Owner::Rollout,
            _ => Owner::Side(Side::Old),
        }),
    }
}

fn user(key: &str) -> Identity {
    Identity::User(User::plain(key))
}

fn question(identity: &Identity) -> Question<'_> {
    Question {
        identity,
        route: Route::Rest,
        belongs: Belongs::ToRoute,
        domain: None,
        override_ask: None,
        client: CLIENT,
        random: 0,
    }
}

fn outcome(question: &Question<'_>, settings: &Settings) -> (Side, Reason) {
    let decision = decide(question, settings);
    (decision.side, decision.reason)
}

/// Bucket 711 under this salt: on new from 7.12 %.
const ADA: &str = "5d1c3f0e-7d0e-4c35-9a53-0c9e2e6f1b11";

#[test]
fn the_percentage_decides_when_nothing_else_does() {
    let ada = user(ADA);
    for (percentage, side) in
        [("0", Side::Old), ("7.11", Side::Old), ("7.12", Side::New), ("100", Side::New)]
    {
        let decision = decide(&question(&ada), &settings(percentage));
        assert_eq!((decision.side, decision.reason), (side, Reason::Percentage), "{percentage}");
        assert_eq!(decision.bucket.unwrap().number(), 711);
    }
    let md5 = Settings { hash: Hash::Md5, ..settings("60") };
    assert_eq!(outcome(&question(&ada), &md5), (Side::New, Reason::Percentage));
    assert_eq!(
        outcome(&question(&ada), &Settings { percentage: "59".parse().unwrap(), ..md5 }).0,
        Side::Old
    );
}

/// Each rule against all the rules below it: the first that answers wins.
#[test]
fn the_rules_are_asked_in_the_order_of_the_reasons() {
    let wanted = Wanted::new(vec![vec!["app_metadata".into(), "beta".into()]]);
    let facts = TokenFacts::of_user(ADA, &json!({"app_metadata": {"beta": true}}), &wanted);
    let ada = Identity::User(User::of_token(Arc::new(facts)).unwrap());
    let mut set = settings("100");
    let mut ask = question(&ada);
    ask.domain = Some("billing");
    assert_eq!(outcome(&ask, &set), (Side::New, Reason::Percentage));
    set.domains.insert("billing".into(), Percentage::ZERO);
    assert_eq!(outcome(&ask, &set), (Side::Old, Reason::DomainCap));
    set.rules.push(Rule {
        claim: vec!["app_metadata".into(), "beta".into()],
        equals: json!(true),
        side: Side::New,
    });
    assert_eq!(outcome(&ask, &set), (Side::New, Reason::Rule));
    set.pins.insert(ADA.into(), Side::Old);
    assert_eq!(outcome(&ask, &set), (Side::Old, Reason::Pin));
    ask.identity = &Identity::Service;
    assert_eq!(outcome(&ask, &set), (Side::Old, Reason::Service));
    set.owners = Owners::from_fn(|_| Owner::Side(Side::New));
    assert_eq!(outcome(&ask, &set), (Side::New, Reason::Owner));
    set.override_token = Some(Secret::new("a-long-enough-token"));
    ask.override_ask = Some((Side::Old, "a-long-enough-token"));
    assert_eq!(outcome(&ask, &set), (Side::Old, Reason::Override));
    set.force = Some(Side::New);
    assert_eq!(outcome(&ask, &set), (Side::New, Reason::Forced));
}

#[test]
fn an_override_without_the_right_token_is_ignored() {
    let ada = user(ADA);
    let mut set = settings("0");
    for (configured, presented) in
        [(None, ""), (None, "x"), (Some("right-token"), "wrong-token"), (Some("right"), "")]
    {
        set.override_token = configured.map(Secret::new);
        let ask = Question { override_ask: Some((Side::New, presented)), ..question(&ada) };
        assert_eq!(
            outcome(&ask, &set),
            (Side::Old, Reason::Percentage),
            "{configured:?} {presented:?}"
        );
    }
}

#[test]
fn force_moves_owners_too_but_neither_auth_nor_what_a_side_issued() {
    let ada = user(ADA);
    let set = Settings { force: Some(Side::New), ..settings("0") };
    for route in Route::ALL {
        let want = if route == Route::Auth {
            (Side::Old, Reason::Owner)
        } else {
            (Side::New, Reason::Forced)
        };
        assert_eq!(outcome(&Question { route, ..question(&ada) }, &set), want, "{route}");
    }
    let signed =
        Question { route: Route::Storage, belongs: Belongs::ToIssuer(Side::Old), ..question(&ada) };
    assert_eq!(outcome(&signed, &set), (Side::Old, Reason::Owner));
}

#[test]
fn rules_compare_as_json_and_need_a_token() {
    let rule = |equals| Rule {
        claim: vec!["app_metadata".into(), "tier".into()],
        equals,
        side: Side::New,
    };
    let wanted = wanted_claims(&[rule(json!("gold"))]);
    let with = |claims| {
        let facts = TokenFacts::of_user("ada", &claims, &wanted);
        Identity::User(User::of_token(Arc::new(facts)).unwrap())
    };
    let mut set = settings("0");
    set.rules = vec![rule(json!("gold")), rule(json!(3))];
    for (identity, reason) in [
        (with(json!({"app_metadata": {"tier": "gold"}})), Reason::Rule),
        (with(json!({"app_metadata": {"tier": 3}})), Reason::Rule),
        (with(json!({"app_metadata": {"tier": "3"}})), Reason::Percentage),
        (with(json!({"app_metadata": "gold"})), Reason::Percentage),
        (with(json!({})), Reason::Percentage),
        (user("ada"), Reason::Percentage),
    ] {
        assert_eq!(outcome(&question(&identity), &set).1, reason, "{identity:?}");
    }
}

#[test]
fn anonymous_requests_follow_their_mode() {
    let nobody = Identity::Anonymous;
    let ask = question(&nobody);
    let sticky = decide(&ask, &settings("50"));
    assert_eq!(sticky, decide(&ask, &settings("50")));
    assert_eq!(sticky.bucket, Some(Bucket::of(Hash::Sha256, "onasis-core-v2", "192.0.2.7")));
    // The same client over an IPv4-mapped socket is the same client.
    let mapped = Question { client: "::ffff:192.0.2.7".parse().unwrap(), ..ask };
    assert_eq!(decide(&mapped, &settings("50")), sticky);
    let random = Settings { anonymous: Anonymous::Random, ..settings("50") };
    assert_eq!(outcome(&Question { random: 0, ..ask }, &random), (Side::New, Reason::Anonymous));
    assert_eq!(
        outcome(&Question { random: u32::MAX, ..ask }, &random),
        (Side::Old, Reason::Anonymous)
    );
    for (mode, side) in [(Anonymous::Old, Side::Old), (Anonymous::New, Side::New)] {
        for percentage in ["0", "100"] {
            let set = Settings { anonymous: mode, ..settings(percentage) };
            assert_eq!(outcome(&ask, &set), (side, Reason::Anonymous));
        }
    }
    let mut capped = settings("100");
    capped.domains.insert("billing".into(), Percentage::ZERO);
    let billing = Question { domain: Some("billing"), ..ask };
    assert_eq!(outcome(&billing, &capped), (Side::Old, Reason::DomainCap));
}

#[test]
fn a_cap_at_or_above_the_percentage_changes_nothing() {
    let ada = user(ADA);
    let ask = Question { domain: Some("billing"), ..question(&ada) };
    let mut set = settings("10");
    set.domains.insert("billing".into(), "10".parse().unwrap());
    assert_eq!(outcome(&ask, &set), (Side::New, Reason::Percentage));
    // A cap lets the first users through, as the percentage does.
    set.percentage = Percentage::HUNDRED;
    assert_eq!(outcome(&ask, &set), (Side::New, Reason::Percentage));
    set.domains.insert("billing".into(), "5".parse().unwrap());
    assert_eq!(outcome(&ask, &set), (Side::Old, Reason::DomainCap));
}

/// The share of new over 100,000 uuids is within 0.5 points of the percentage.
#[test]
fn the_share_of_new_is_the_percentage() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u128;
    let mut next_uuid = || {
        state = state
            .wrapping_mul(0x2360_ed05_1fc6_5da4_4385_df64_9fcc_f645)
            .wrapping_add(0x5851_f42d_4c95_7f2d);
        let n = state ^ (state >> 64);
        format!(
            "{:08x}-{:04x}-4{:03x}-8{:03x}-{:012x}",
            n as u32,
            (n >> 32) as u16,
            (n >> 48) as u16 & 0xfff,
            (n >> 60) as u16 & 0xfff,
            (n >> 72) & 0xffff_ffff_ffff
        )
    };
    let buckets: Vec<Bucket> =
        (0..100_000).map(|_| Bucket::of(Hash::Sha256, "onasis-core-v2", &next_uuid())).collect();
    for percentage in [1_u8, 10, 50, 90] {
        let set = Percentage::from_whole(percentage).unwrap();
        let share = buckets.iter().filter(|bucket| bucket.is_new_at(set)).count() as f64 / 1000.0;
        assert!((share - f64::from(percentage)).abs() <= 0.5, "{percentage} %: {share}");
    }
}

proptest! {
    #[test]
    fn same_key_same_bucket_and_raising_never_moves_anybody_back(
        key in ".{0,40}", salt in ".{0,10}", low in 0_u16..=100, rise in 0_u16..=100, md5 in any::<bool>(),
    ) {
        let hash = if md5 { Hash::Md5 } else { Hash::Sha256 };
        let at = |hundredths: u16| Settings {
            percentage: Percentage::from_hundredths(hundredths.min(10_000)).unwrap(),
            salt: salt.clone(),
            hash,
            ..settings("0")
        };
        let (low, high) = (low * 100, (low + rise).min(100) * 100);
        let identity = user(&key);
        let (before, after) = (decide(&question(&identity), &at(low)), decide(&question(&identity), &at(high)));
        prop_assert_eq!(before.bucket, after.bucket);
        // Raising never moves anybody to old; read the other way round, lowering never moves anybody to new.
        prop_assert!(!(before.side == Side::New && after.side == Side::Old));
        let bucket = before.bucket.unwrap();
        prop_assert_eq!(after.side == Side::New, high >= bucket.moves_at(hash).hundredths());
    }
}
