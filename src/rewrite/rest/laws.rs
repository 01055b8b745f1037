//! Laws of the translation, on generated requests: there and back gives the same bytes, every mapped name is
//! said the other way, and nothing panics.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::fixture::{Request, VENDORS, get, settings};
use super::*;
use crate::rewrite::query::params;
use crate::rewrite::select::{Embed, embeds};
use crate::side::Side::{New, Old};

/// One embed of a generated request; rendered in either dialect.
#[derive(Clone, Debug)]
struct Node {
    alias: Option<&'static str>,
    target: Target,
    is_spread: bool,
    params: String,
    /// Rendered as `!table`: a junction.
    junction: Option<usize>,
    items: Vec<Item>,
}

#[derive(Clone, Debug)]
enum Target {
    Table(usize, Quoting),
    /// A foreign key, its column, a computed relationship.
    Key(&'static str),
}

#[derive(Clone, Copy, Debug)]
enum Quoting {
    Bare,
    Quoted,
    Encoded,
}

#[derive(Clone, Debug)]
enum Item {
    Field(&'static str),
    Embed(Node),
}

/// A parameter that mentions an embed by the path that these indices choose.
#[derive(Clone, Debug)]
struct Mention {
    path: Vec<usize>,
    by_target: bool,
    form: usize,
}

const FIELDS: [&str; 22] = [
    "id",
    "*",
    "first%20name",
    "a+b",
    "%22a,b(c%22",
    "\"say \\\"hi\\\"\"",
    "data->a->>b",
    "data-%3E%3E'x'",
    "data->0->-1",
    "data->>\"a(b\"::text",
    "x::text",
    "renamed:x::date",
    "amount.sum()",
    "total:amount.avg()::int",
    "count()",
    "n:count()::text",
    "na%6De",
    "na\u{ef}ve",
    "caf%C3%A9",
    "with-dash",
    " spaced ",
    "api_keys_count",
];

impl Node {
    /// The embed's name in filters: its alias or its target.
    fn known_as(&self, name: fn(usize) -> &'static str) -> String {
        self.alias.map_or_else(|| self.target.render(name), str::to_owned)
    }

    fn render(&self, name: fn(usize) -> &'static str, out: &mut String) {
        if self.is_spread {
            out.push_str("...");
        } else if let Some(alias) = self.alias {
            out.push_str(alias);
            out.push(':');
        }
        out.push_str(&self.target.render(name));
        if let Some(table) = self.junction {
            out.push('!');
            out.push_str(name(table));
        }
        out.push_str(&self.params);
        out.push('(');
        render_items(&self.items, name, out);
        out.push(')');
    }
}

impl Target {
    fn render(&self, name: fn(usize) -> &'static str) -> String {
        match *self {
            Self::Key(key) => key.to_owned(),
            Self::Table(table, Quoting::Bare) => name(table).to_owned(),
            Self::Table(table, Quoting::Quoted) => format!("\"{}\"", name(table)),
            Self::Table(table, Quoting::Encoded) => format!("%22{}%22", name(table)),
        }
    }
}

fn render_items(items: &[Item], name: fn(usize) -> &'static str, out: &mut String) {
    for (i, item) in items.iter().enumerate() {
        out.push_str(if i > 0 { "," } else { "" });
        match item {
            Item::Field(field) => out.push_str(field),
            Item::Embed(node) => node.render(name, out),
        }
    }
}

fn children(items: &[Item]) -> Vec<&Node> {
    items.iter().filter_map(|i| if let Item::Embed(node) = i { Some(node) } else { None }).collect()
}

impl Mention {
    /// Follows the path as deep as there are embeds; `None` when there is not one.
    fn render(&self, items: &[Item], name: fn(usize) -> &'static str) -> Option<String> {
        let mut path = Vec::new();
        let mut items = items;
        for index in &self.path {
            let nodes = children(items);
            let Some(node) = nodes.get(index % nodes.len().max(1)) else { break };
            let target =
                if self.by_target { node.target.render(name) } else { node.known_as(name) };
            path.push(target);
            items = &node.items;
        }
        let last = path.last()?.clone();
        let above = path[..path.len() - 1].iter().map(|p| format!("{p}.")).collect::<String>();
        let path = path.join(".");
        let forms = [
            format!("{path}.id=eq.{last}"),
            format!("{path}.data->x=in.(1,2)"),
            format!("{path}.order=id.desc.nullslast,x"),
            format!("{path}.limit=3"),
            format!("{path}.offset=3"),
            format!("{path}.or=(a.eq.1,and(b.gt.2,c.in.(\"x,y\",z)))"),
            format!("{path}.not.and=(a.eq.1,d.cs.%7B1,2%7D)"),
            format!("{above}{last}=not.is.null"),
            format!("{above}{last}=is.null"),
            format!("{above}or=(id.eq.1,{last}.not.is.null,not.and({last}.is.null,b.eq.2))"),
            format!("{above}order=id.asc,{last}(name).desc.nullsfirst,x->y"),
        ];
        forms.into_iter().nth(self.form % 11)
    }
}

fn target() -> impl Strategy<Value = Target> {
    let quoting = prop_oneof![Just(Quoting::Bare), Just(Quoting::Quoted), Just(Quoting::Encoded)];
    // The odd name, which can't stand bare, has its own tests.
    let table = prop_oneof![0..4_usize, Just(5)];
    prop_oneof![
        4 => (table, quoting).prop_map(|(table, quoting)| Target::Table(table, quoting)),
        1 => prop_oneof![Just("vendor_id"), Just("fk_org"), Just("%22computed rel%22")]
            .prop_map(Target::Key),
    ]
}

fn items() -> impl Strategy<Value = Vec<Item>> {
    let field = (0..FIELDS.len()).prop_map(|i| Item::Field(FIELDS[i]));
    let leaf = vec(field.clone(), 0..3);
    leaf.prop_recursive(5, 40, 5, move |inner| {
        let alias = option::of(prop_oneof![Just("one"), Just("two"), Just("%22my alias%22")]);
        let params = prop_oneof![
            Just(""),
            Just("!inner"),
            Just("!left"),
            Just("!fk_a"),
            Just("%21fk_a%21inner"),
            Just("!left!\"fk b\"")
        ];
        let junction = option::weighted(0.2, 0..4_usize);
        let node = (alias, target(), any::<bool>(), params, junction, inner).prop_map(
            |(alias, target, is_spread, params, junction, items)| Node {
                alias: if is_spread { None } else { alias },
                target,
                is_spread,
                params: if junction.is_some() { "!inner".to_owned() } else { params.to_owned() },
                junction,
                items,
            },
        );
        vec(prop_oneof![2 => field.clone(), 3 => node.prop_map(Item::Embed)], 1..5)
    })
}

fn mention() -> impl Strategy<Value = Mention> {
    (vec(0..8_usize, 1..4), any::<bool>(), 0..11_usize)
        .prop_map(|(path, by_target, form)| Mention { path, by_target, form })
}

/// The generated request in a dialect.
fn render(
    own: usize,
    items: &[Item],
    mentions: &[Mention],
    select_at: usize,
    name: fn(usize) -> &'static str,
) -> String {
    let mut select = "select=".to_owned();
    render_items(items, name, &mut select);
    let mut query: Vec<String> =
        mentions.iter().filter_map(|mention| mention.render(items, name)).collect();
    query.push("id=eq.1&order=id&limit=5".to_owned());
    query.insert(select_at % (query.len() + 1), select);
    format!("/{}?{}", name(own), query.join("&"))
}

fn legacy_name(table: usize) -> &'static str {
    VENDORS[table].0
}

fn new_name(table: usize) -> &'static str {
    VENDORS[table].1
}

fn read(request: &Request) -> Vec<Embed<'_>> {
    let query = request.query.as_deref().unwrap();
    let select = params(query).find(|p| query[p.key.start..p.key.end] == *"select").unwrap();
    embeds(query, select.value.unwrap()).unwrap()
}

/// There, checked name by name without the splicing code, and back.
fn check(profile: &str, path: &str, side: Side, tongue: fn(&str) -> Option<&'static str>) {
    let settings = settings();
    let request = get(Some(profile), path);
    let there = request.to(&settings, side).unwrap();
    assert!(!there.unknown_syntax, "{path}");
    let sent = request.sent(&there);
    assert_eq!(sent.tail, format!("/{}", tongue(&request.tail[1..]).unwrap()));
    for (before, after) in read(&request).iter().zip(&read(&sent)) {
        let said = tongue(&before.target.text).unwrap_or(&before.target.text);
        assert_eq!(after.target.text, said, "{path} -> {}", sent.path());
        assert_eq!(before.parent, after.parent);
        if !before.is_spread {
            assert_eq!(after.known_as(), before.known_as(), "the JSON keeps its shape");
        }
        let redundant = after.alias.as_ref().is_some_and(|a| a.text == after.target.text);
        assert!(!redundant, "{}", sent.path());
        let hint = before.hint.as_ref().map(|h| tongue(&h.text).unwrap_or(&h.text).to_owned());
        assert_eq!(after.hint.as_ref().map(|h| h.text.clone().into_owned()), hint);
    }
    check_paths(&request, &sent);
    let other = if side == New { Old } else { New };
    let back = sent.to(&settings, other).unwrap();
    assert_eq!(sent.sent(&back).path(), path, "by way of {}", sent.path());
}

/// Every path of a key leads to the same embed in both requests.
fn check_paths(request: &Request, sent: &Request) {
    let (before, after) = (read(request), read(sent));
    let (asked, said) = (request.query.as_deref().unwrap(), sent.query.as_deref().unwrap());
    for (a, b) in params(asked).zip(params(said)) {
        let a = super::super::query::decode(asked, a.key).unwrap().replace('"', "");
        let b = super::super::query::decode(said, b.key).unwrap().replace('"', "");
        if a.contains("->") {
            continue;
        }
        assert_eq!(follow(&before, &a), follow(&after, &b), "{a} became {b}");
    }
}

/// The embeds that a dotted path leads through, as PostgREST finds them.
fn follow(embeds: &[Embed<'_>], path: &str) -> Vec<usize> {
    let mut parent = None;
    let mut found = Vec::new();
    let names: Vec<&str> = path.split('.').collect();
    for (at, name) in names.iter().enumerate() {
        // The last is a column, or the embed of a null test, which is known by its effective name only.
        let is_above = at + 1 < names.len();
        let here = || embeds.iter().enumerate().filter(|(_, e)| e.parent == parent);
        let next = here()
            .find(|(_, e)| e.known_as() == *name)
            .or_else(|| here().find(|(_, e)| is_above && e.target.text == *name));
        let Some((index, _)) = next else { break };
        found.push(index);
        parent = Some(index);
    }
    found
}

fn to_new(name: &str) -> Option<&'static str> {
    VENDORS.iter().find(|(old, _)| *old == name).map(|(_, new)| *new)
}

fn to_old(name: &str) -> Option<&'static str> {
    VENDORS.iter().find(|(_, new)| *new == name).map(|(old, _)| *old)
}

/// Text that looks like the grammar more often than not.
fn junk() -> impl Strategy<Value = String> {
    let pieces = [
        "vendor_organizations",
        "api_keys",
        "id",
        "(",
        ")",
        "(",
        ")",
        ",",
        ".",
        "...",
        ":",
        "::",
        "!",
        "->",
        "->>",
        "*",
        "\"",
        "%22",
        "%",
        "%2",
        "%FF",
        "+",
        " ",
        "=",
        "&",
        ";",
        "select=",
        "order=",
        "or=(",
        "not.",
        "is.null",
        "eq.",
        "in.(",
        "{",
        "}",
        "é",
        "%C3%A9",
        "\\",
        "-",
        "count()",
    ];
    vec(0..pieces.len(), 0..30).prop_map(move |at| at.iter().map(|i| pieces[*i]).collect())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1024, ..ProptestConfig::default() })]

    #[test]
    fn there_and_back_is_the_same_request(
        own in prop_oneof![0..4_usize, Just(5)],
        items in items(),
        mentions in vec(mention(), 0..5),
        select_at in 0..8_usize,
    ) {
        let legacy = render(own, &items, &mentions, select_at, legacy_name);
        check("public", &legacy, New, to_new);
        let new = render(own, &items, &mentions, select_at, new_name);
        check("vendors", &new, Old, to_old);
    }

    #[test]
    fn nothing_panics_and_native_requests_are_untouched(
        tail in prop_oneof!["/?.{0,20}", junk()],
        query in option::of(prop_oneof![".{0,60}", junk(), junk().prop_map(|j| format!("select={j}"))]),
        schema in prop_oneof![Just("public"), Just("vendors"), Just("app_crm")],
    ) {
        let settings = settings();
        let mut request = get(Some(schema), &tail);
        request.query = query;
        for side in Side::ALL {
            let translated = request.to(&settings, side).unwrap();
            let native = schema == if side == Old { "public" } else { "vendors" };
            if native || schema == "app_crm" {
                prop_assert_eq!((translated.tail, translated.query), (None, None));
                prop_assert_eq!(translated.profile, schema);
            }
        }
    }

    #[test]
    fn a_select_that_is_not_understood_keeps_its_bytes(
        before in junk(),
        broken in prop_oneof![
            Just("vendor_organizations(("), Just("a!!b(c)"), Just("x[0](y)"), Just("a:b:c(d)"), Just("(")
        ],
    ) {
        let path = format!("/vendor_api_keys?select={},{broken}", before.replace(['&', ';', '='], ""));
        let request = get(None, &path);
        // Brackets and quotes before may give the broken part another sense: then it is a name or a value.
        let translated = request.to(&settings(), New).unwrap();
        if translated.unknown_syntax {
            prop_assert_eq!(translated.query, None);
        } else {
            prop_assert!(path.contains(['"', '(']) || path.contains("%22"));
        }
    }

    #[test]
    fn other_parameters_are_never_touched(query in junk()) {
        // Nothing is embedded, so nothing names a table.
        let query = query.replace("select", "selec");
        let request = get(None, &format!("/vendor_api_keys?{query}"));
        prop_assert_eq!(request.to(&settings(), New).unwrap().query, None);
    }
}
