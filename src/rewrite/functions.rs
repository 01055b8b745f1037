//! Edge functions: their names on either side, and who owns one by name (`supabase-wire.md` 6.1). Only the path is touched: a webhook's
//! signature covers the exact bytes of its body.

use std::collections::{BTreeMap, BTreeSet};

use foldhash::{HashMap, HashMapExt};

use crate::decide::Belongs;
use crate::side::{Pair, Side};

/// Names and owners of functions (`[functions]`), ready to be looked up.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// The name on this side, by the name on the other one.
    names: Pair<HashMap<String, String>>,
    /// Name in either dialect → its owner.
    owners: HashMap<String, Side>,
    /// Path segments of the longest name: no more are looked at.
    depth: usize,
}

/// Names that can't be read both ways, or owners that contradict each other.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Several old names lead to one new name.
    #[error("{new} is the new name of {}", olds.join(" and of "))]
    Ambiguous {
        /// The new name.
        new: String,
        /// The old names.
        olds: Vec<String>,
    },
    /// One text is the new name of one function and the old name of another.
    #[error("{name} is the new name of one function and the old name of another")]
    Crossed {
        /// The text.
        name: String,
    },
    /// One function has two owners, one by each of its names.
    #[error("{old} and {new} are one function, and have different owners")]
    TwoOwners {
        /// Its name on old.
        old: String,
        /// Its name on new.
        new: String,
    },
}

impl Settings {
    /// Makes the map and its inverse.
    ///
    /// # Errors
    /// Every fault, not only the first.
    pub fn build(
        names: &BTreeMap<String, String>,
        owners: &BTreeMap<String, Side>,
    ) -> Result<Self, Vec<Fault>> {
        let mut faults = Vec::new();
        let mut olds: BTreeMap<&String, Vec<String>> = BTreeMap::new();
        for (old, new) in names {
            olds.entry(new).or_default().push(old.clone());
        }
        for (new, olds) in olds.into_iter().filter(|(_, olds)| olds.len() > 1) {
            faults.push(Fault::Ambiguous { new: new.clone(), olds });
        }
        let renamed: Vec<_> = names.iter().filter(|(old, new)| old != new).collect();
        let news: BTreeSet<&String> = renamed.iter().map(|(_, new)| *new).collect();
        for name in news.into_iter().filter(|name| names.contains_key(*name)) {
            faults.push(Fault::Crossed { name: name.clone() });
        }
        let mut all: HashMap<String, Side> = owners.clone().into_iter().collect();
        let mut maps: Pair<HashMap<String, String>> = Pair::from_fn(|_| HashMap::new());
        for (old, new) in renamed {
            maps.new.insert(old.clone(), new.clone());
            maps.old.insert(new.clone(), old.clone());
            match (owners.get(old), owners.get(new)) {
                (Some(a), Some(b)) if a != b => {
                    faults.push(Fault::TwoOwners { old: old.clone(), new: new.clone() });
                }
                (Some(side), _) | (_, Some(side)) => {
                    all.extend([(old.clone(), *side), (new.clone(), *side)]);
                }
                (None, None) => {}
            }
        }
        let depth = maps.old.keys().chain(maps.new.keys()).chain(all.keys());
        let depth = depth.map(|name| name.split('/').count()).max().unwrap_or(0);
        if faults.is_empty() { Ok(Self { names: maps, owners: all, depth }) } else { Err(faults) }
    }

    /// Every function whose name differs, by its names on old and new, sorted.
    #[must_use]
    pub fn lines(&self) -> Vec<(&str, &str)> {
        let names = self.names.new.iter().map(|(old, new)| (old.as_str(), new.as_str()));
        let mut names: Vec<_> = names.collect();
        names.sort_unstable();
        names
    }

    /// The functions that a side serves for everybody, in either dialect, sorted.
    #[must_use]
    pub fn owned_by(&self, side: Side) -> Vec<&str> {
        let owned = self.owners.iter().filter(|(_, owner)| **owner == side);
        let mut owned: Vec<_> = owned.map(|(name, _)| name.as_str()).collect();
        owned.sort_unstable();
        owned
    }

    /// The longest known name that the raw path begins with, on borders of segments, and what was found for it.
    fn longest<'t, T>(
        &self,
        tail: &'t str,
        mut find: impl FnMut(&str) -> Option<T>,
    ) -> Option<(T, &'t str)> {
        let path = tail.strip_prefix('/')?;
        let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]).take(self.depth);
        let found = ends.filter_map(|end| {
            let (name, rest) = path.split_at_checked(end)?;
            Some((find(name)?, rest))
        });
        found.last()
    }
}

/// The side of the function that a raw path below `/functions/v1` names, if it has an owner.
#[must_use]
pub fn belongs(settings: &Settings, tail: &str) -> Belongs {
    let owner = settings.longest(tail, |name| settings.owners.get(name).copied());
    owner.map_or(Belongs::ToRoute, |(side, _)| Belongs::ToOwner(side))
}

/// The raw path below `/functions/v1` as `side` names it; `None` when nothing changes. Whatever follows the name stays.
#[must_use]
pub fn translate(settings: &Settings, tail: &str, side: Side) -> Option<String> {
    let other = &settings.names[side.other()];
    // A longer name that is the side's own already stands: with memory = "memory/v2", /memory/v2 is not /memory with something behind.
    let find = |name: &str| match settings.names[side].get(name) {
        Some(translated) => Some(Some(translated)),
        None => other.contains_key(name).then_some(None),
    };
    let (name, rest) = settings.longest(tail, find)?;
    Some(format!("/{}{rest}", name?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn settings(names: &[(&str, &str)], owners: &[(&str, Side)]) -> Result<Settings, Vec<Fault>> {
        let names = names.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
        let owners = owners.iter().map(|(name, side)| ((*name).to_owned(), *side)).collect();
        Settings::build(&names, &owners)
    }

    fn map() -> Settings {
        let names = [
            ("memory-create", "memory/create"),
            ("memory-search", "memory/search"),
            ("pay", "billing"),
            ("chat", "chat/v2"),
        ];
        settings(
            &names,
            &[("memory-create", Side::Old), ("billing", Side::New), ("stripe-webhook", Side::Old)],
        )
        .unwrap()
    }

    #[test]
    fn either_dialect_is_understood_on_either_side() {
        for (tail, on_old, on_new) in [
            ("/memory-create", "/memory-create", "/memory/create"),
            ("/memory/create", "/memory-create", "/memory/create"),
            ("/memory/search/deep%2Fer", "/memory-search/deep%2Fer", "/memory/search/deep%2Fer"),
            ("/pay/", "/pay/", "/billing/"),
            ("/billing", "/pay", "/billing"),
            ("/chat/v2", "/chat", "/chat/v2"),
            ("/chat/v2/x", "/chat/x", "/chat/v2/x"),
            ("/chat/x", "/chat/x", "/chat/v2/x"),
            ("/memory-created", "/memory-created", "/memory-created"),
            ("/memory", "/memory", "/memory"),
            ("/unknown/pay", "/unknown/pay", "/unknown/pay"),
            ("/", "/", "/"),
            ("", "", ""),
        ] {
            for (side, want) in [(Side::Old, on_old), (Side::New, on_new)] {
                let said = translate(&map(), tail, side).unwrap_or_else(|| tail.to_owned());
                assert_eq!(said, want, "{tail} on {side}");
            }
        }
    }

    #[test]
    fn an_owner_is_found_by_either_name_and_by_what_is_below() {
        for (tail, want) in [
            ("/memory-create", Belongs::ToOwner(Side::Old)),
            ("/memory/create/now", Belongs::ToOwner(Side::Old)),
            ("/pay", Belongs::ToOwner(Side::New)),
            ("/billing/x", Belongs::ToOwner(Side::New)),
            ("/stripe-webhook", Belongs::ToOwner(Side::Old)),
            ("/stripe-webhooks", Belongs::ToRoute),
            ("/memory-search", Belongs::ToRoute),
            ("", Belongs::ToRoute),
        ] {
            assert_eq!(belongs(&map(), tail), want, "{tail}");
        }
    }

    #[test]
    fn every_name_can_be_gone_through() {
        let map = settings(&[("pay", "billing"), ("a", "b"), ("same", "same")], &[]).unwrap();
        assert_eq!(map.lines(), [("a", "b"), ("pay", "billing")]);
    }

    #[test]
    fn names_that_cannot_be_read_both_ways_are_faults() {
        let ambiguous =
            Fault::Ambiguous { new: "c".to_owned(), olds: vec!["a".to_owned(), "b".to_owned()] };
        assert_eq!(settings(&[("a", "c"), ("b", "c")], &[]).unwrap_err(), [ambiguous]);
        let crossed = Fault::Crossed { name: "b".to_owned() };
        assert_eq!(settings(&[("a", "b"), ("b", "c")], &[]).unwrap_err(), [crossed]);
        let two = Fault::TwoOwners { old: "a".to_owned(), new: "b".to_owned() };
        let owners = [("a", Side::Old), ("b", Side::New)];
        assert_eq!(settings(&[("a", "b")], &owners).unwrap_err(), [two]);
        assert!(settings(&[("a", "a")], &[]).is_ok());
    }

    proptest! {
        #[test]
        fn there_and_back_is_where_one_was(tail in "(/(memory|memory-create|create|pay|billing|x|%2F)){0,4}/?") {
            let map = map();
            let to = |tail: &str, side| translate(&map, tail, side).unwrap_or_else(|| tail.to_owned());
            let old = to(&tail, Side::Old);
            prop_assert_eq!(&to(&to(&old, Side::New), Side::Old), &old);
            prop_assert_eq!(&to(&old, Side::Old), &old, "said once, it stays");
        }
    }
}
