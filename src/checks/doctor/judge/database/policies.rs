//! Whether a table's policies say the same on both sides, whatever they are called.

use std::collections::BTreeSet;

use super::super::rest::Mapped;
use super::super::sql::{ident, qualified};
use super::Names;
use crate::checks::catalogue::{Policy, Relation};
use crate::checks::doctor::finding::Finding;
use crate::side::Side;

const ID: &str = "db.policies";

/// What a policy says, in the words of one side.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Said {
    command: String,
    permissive: bool,
    roles: BTreeSet<String>,
    using: Option<String>,
    check: Option<String>,
}

impl Said {
    fn new(policy: &Policy, say: impl Fn(&str) -> String) -> Self {
        Self {
            command: policy.command.clone(),
            permissive: policy.permissive,
            roles: policy.roles.iter().cloned().collect(),
            using: policy.using.as_deref().map(&say),
            check: policy.check.as_deref().map(&say),
        }
    }

    fn shown(&self) -> String {
        let roles: Vec<&str> = self.roles.iter().map(String::as_str).collect();
        let kind = if self.permissive { "" } else { "restrictive, " };
        let using = self.using.as_deref().map_or(String::new(), |it| format!(" using {it}"));
        let check = self.check.as_deref().map_or(String::new(), |it| format!(" with check {it}"));
        format!("{kind}{} to {}{using}{check}", self.command, roles.join(", "))
    }
}

/// Compares two tables' policies, in new's words.
pub(super) fn compare(
    mapped: &Mapped,
    old: &Relation,
    new: &Relation,
    names: &Names,
) -> Vec<Finding> {
    if !old.kind.is_table() || !new.kind.is_table() {
        return Vec::new();
    }
    let subject = mapped.on(Side::New);
    let on_new = |it: &Policy| Said::new(it, one_line);
    let on_old = |it: &Policy| Said::new(it, |text| names.said_on(Side::New, text, mapped));
    let theirs: Vec<(&Policy, Said)> = new.policies.iter().map(|it| (it, on_new(it))).collect();
    let ours: Vec<(&Policy, Said)> = old.policies.iter().map(|it| (it, on_old(it))).collect();
    let mut findings = Vec::new();
    for (policy, said) in ours.iter().filter(|(_, said)| !theirs.iter().any(|(_, it)| it == said)) {
        let named = format!("{subject}: {}", policy.name);
        let other = theirs.iter().find(|(it, _)| it.name == policy.name);
        let create = create(mapped, policy, said);
        findings.push(match other {
            Some((_, other)) => {
                let seen = format!("old says: {}; new says: {}", said.shown(), other.shown());
                let place = qualified(&mapped.schema, &mapped.new);
                let drop = format!("drop policy {} on {place};", ident(&policy.name));
                Finding::fail(ID, Side::New, &named, seen, format!("on new: {drop}\n{create}"))
            }
            None => {
                let seen = format!("new has no such policy; old says: {}", said.shown());
                Finding::fail(ID, Side::New, &named, seen, format!("on new: {create}"))
            }
        });
    }
    let is_known =
        |said: &Said, name: &str| ours.iter().any(|(policy, it)| it == said || policy.name == name);
    for (policy, said) in theirs.iter().filter(|(it, said)| !is_known(said, &it.name)) {
        let named = format!("{subject}: {}", policy.name);
        let seen = format!("only new has this policy: {}", said.shown());
        let fix = format!(
            "if it is not meant, on new: drop policy {} on {};",
            ident(&policy.name),
            qualified(&mapped.schema, &mapped.new)
        );
        findings.push(Finding::warn(ID, Side::New, &named, seen, fix));
    }
    if findings.is_empty() {
        let seen = match ours.len() {
            1 => "1 policy, the same on both sides".to_owned(),
            count => format!("{count} policies, the same on both sides"),
        };
        findings.push(Finding::pass(ID, None, &subject, seen));
    }
    findings
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn create(mapped: &Mapped, policy: &Policy, said: &Said) -> String {
    let roles: Vec<String> = said.roles.iter().map(|it| ident(it)).collect();
    let kind = if said.permissive { "" } else { " as restrictive" };
    let clause = |word: &str, text: &Option<String>| {
        text.as_deref().map_or(String::new(), |text| format!(" {word} ({text})"))
    };
    format!(
        "create policy {} on {}{kind} for {} to {}{}{};",
        ident(&policy.name),
        qualified(&mapped.schema, &mapped.new),
        said.command,
        roles.join(", "),
        clause("using", &said.using),
        clause("with check", &said.check)
    )
}

#[cfg(test)]
mod tests {
    use super::super::tests::relation;
    use super::*;
    use crate::checks::doctor::finding::Status;

    fn policy(name: &str, command: &str, using: &str) -> Policy {
        Policy {
            name: name.to_owned(),
            command: command.to_owned(),
            permissive: true,
            roles: vec!["authenticated".to_owned()],
            using: Some(using.to_owned()),
            check: None,
        }
    }

    #[test]
    fn policies_are_the_same_if_they_say_the_same() {
        let mapped = Mapped::new("public", "vendor_keys", "vendors", "keys");
        let names = Names::new(std::slice::from_ref(&mapped), &[]);
        let with = |schema: &str, name: &str, policies: Vec<Policy>| {
            let mut relation = relation(schema, name);
            relation.policies = policies;
            relation
        };
        let old = with(
            "public",
            "vendor_keys",
            vec![policy("own", "all", "(vendor_keys.user_id = auth.uid())")],
        );
        for (policies, want, word) in [
            (
                vec![policy("own", "all", "(keys.user_id = auth.uid())")],
                &[Status::Pass][..],
                "the same",
            ),
            (
                vec![policy("renamed", "all", "(keys.user_id = auth.uid())")],
                &[Status::Pass],
                "the same",
            ),
            (
                vec![policy("own", "all", "true")],
                &[Status::Fail],
                "new says: all to authenticated using true",
            ),
            (
                vec![policy("own", "select", "(keys.user_id = auth.uid())")],
                &[Status::Fail],
                "new says: select",
            ),
            (vec![], &[Status::Fail], "no such policy"),
            (
                vec![
                    policy("own", "all", "(keys.user_id = auth.uid())"),
                    policy("all", "select", "true"),
                ],
                &[Status::Warn],
                "only new",
            ),
        ] {
            let found = compare(&mapped, &old, &with("vendors", "keys", policies), &names);
            let shown: Vec<Status> = found.iter().map(|it| it.status).collect();
            assert_eq!(shown, want, "{found:?}");
            assert!(found[0].seen.contains(word), "{found:?}");
        }
        let missing = compare(&mapped, &old, &with("vendors", "keys", vec![]), &names);
        let statement = "create policy own on vendors.keys for all to authenticated using ((keys.user_id = auth.uid()));";
        assert!(missing[0].fix.contains(statement), "{}", missing[0].fix);
    }
}
