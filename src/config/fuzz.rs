//! What must hold of any text that settings are read from: what a fuzzer starts, and what the properties start.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use toml_edit::{DocumentMut, ImDocument, Item};

use super::configmap::{Contact, NotWritten, Patch, Store, Version};
use super::edit::{self, New};
use super::fault::Faults;
use super::follow::{FORCE, PERCENTAGE};
use super::keys::KEYS;
use super::live::{Control, First, Follow, Sources};
use super::load::{Loaded, Overlay, load};
use super::{envfile, variables};

/// What edits write.
const NUMBER: &str = "37.5";

/// Shorter secrets than this may stand in a text by chance.
const SECRET: usize = 8;

/// A file without faults.
const GOOD: &str = "[projects.old]\nurl = \"http://a\"\nanon_key = \"old-anon\"\n[projects.new]\nurl = \"http://b\"\n\
    anon_key = \"new-anon\"\n[rollout]\npercentage = 10\naudit_file = \"\"\n";

/// Takes a text as the configuration file: it is good or refused as a whole, twice in the same way, and no fault shows a secret; an edit
/// changes one value and no byte beside it.
///
/// # Errors
/// The law that does not hold.
pub fn file(bytes: &[u8]) -> Result<(), String> {
    let Ok(text) = std::str::from_utf8(bytes) else { return Ok(()) };
    let first = loaded(text);
    match (&first, loaded(text)) {
        (Ok(_), Ok(_)) => {}
        (Err(faults), Err(again)) if *faults == again => {}
        _ => return Err(format!("the same text is read in two ways: {text}")),
    }
    if let Err(faults) = &first {
        if faults.0.is_empty() {
            return Err(format!("refused without a fault: {text}"));
        }
        no_secret(text, faults)?;
    }
    edited(text, first.ok().as_ref())
}

fn loaded(text: &str) -> Result<Loaded, Faults> {
    // Nothing is read from there: the text stands in its place.
    let path = PathBuf::from("/nowhere/config.toml");
    let sources = Sources { file: Some(path.clone()), environment: BTreeMap::new() };
    let files = BTreeMap::from([(path, text.to_owned())]);
    load(&sources, false, &Overlay { files, configmap: None }).outcome
}

fn no_secret(text: &str, faults: &Faults) -> Result<(), String> {
    let Ok(document) = ImDocument::parse(text) else { return Ok(()) };
    let shown = faults.to_string();
    for key in KEYS.iter().filter(|key| key.is_secret()) {
        let found = key.name.split('.').try_fold(document.as_item(), |item, name| item.get(name));
        let several = found.and_then(Item::as_array).into_iter().flatten();
        let one = found.and_then(Item::as_str).into_iter();
        for secret in one.chain(several.filter_map(|value| value.as_str())) {
            let is_only_there = secret.len() >= SECRET && text.matches(secret).count() == 1;
            if is_only_there && shown.contains(secret) {
                return Err(format!("{} is shown: {shown}", key.name));
            }
        }
    }
    Ok(())
}

/// The percentage is set in the text.
fn edited(text: &str, was: Option<&Loaded>) -> Result<(), String> {
    let Ok(edited) = edit::toml(text, "rollout", "percentage", New::Number(NUMBER)) else {
        return if was.is_some() {
            Err(format!("good, and can't be edited: {text}"))
        } else {
            Ok(())
        };
    };
    one_place(text, &edited)?;
    // A text that is no good may have no good place either; whoever edits looks at the result before it is written.
    let (Ok(before), Ok(after)) = (text.parse::<DocumentMut>(), edited.parse::<DocumentMut>())
    else {
        return if was.is_some() { Err(format!("no TOML any more: {edited}")) } else { Ok(()) };
    };
    if let Some(was) = was {
        others_stay(before, after)?;
        let overridden = ["rollout.env_file", "rollout.watch_dir"];
        if overridden.iter().all(|key| was.merged.text(key).is_empty()) {
            let now = loaded(&edited).map_err(|faults| format!("{edited}: {faults}"))?;
            if now.merged.percentage().to_string() != NUMBER {
                return Err(format!("the number is not in force: {edited}"));
            }
        }
    }
    Ok(())
}

/// One stretch was replaced, by something that holds the number, and all else is the same bytes.
fn one_place(before: &str, after: &str) -> Result<(), String> {
    let (was, is) = (before.as_bytes(), after.as_bytes());
    let head = was.iter().zip(is).take_while(|(a, b)| a == b).count();
    let rest = was.len().min(is.len()) - head;
    let tail = was.iter().rev().zip(is.iter().rev()).take(rest).take_while(|(a, b)| a == b).count();
    let gone = was.get(head..was.len() - tail).unwrap_or_default();
    // What is gone is a value, or nothing: a value has no line end of its own but in a list or in a long text, which no percentage is.
    let is_value = !gone.contains(&b'\n') || was.windows(3).any(|w| w == b"\"\"\"" || w == b"'''");
    if after.contains(NUMBER) && (is_value || before.contains('[')) {
        return Ok(());
    }
    Err(format!("{before:?} became {after:?}"))
}

/// All other values are what they were.
fn others_stay(mut before: DocumentMut, mut after: DocumentMut) -> Result<(), String> {
    for document in [&mut before, &mut after] {
        if let Some(rollout) = document.get_mut("rollout").and_then(Item::as_table_like_mut) {
            rollout.remove("percentage");
        }
    }
    let values = |document: &DocumentMut| {
        let mut values = Vec::new();
        flatten(document.as_item(), "", &mut values);
        values.sort();
        values
    };
    let (was, is) = (values(&before), values(&after));
    if was == is { Ok(()) } else { Err(format!("{was:?} became {is:?}")) }
}

fn flatten(item: &Item, path: &str, out: &mut Vec<(String, String)>) {
    match item.as_table_like() {
        Some(table) => {
            for (name, item) in table.iter() {
                flatten(item, &format!("{path}.{name}"), out);
            }
        }
        None => out.push((path.to_owned(), item.to_string().trim().to_owned())),
    }
}

/// Takes a text as an env file: each line is read or named, what was read stands where it says, and an edit changes one value and nothing
/// beside it.
///
/// # Errors
/// The law that does not hold.
pub fn env_file(bytes: &[u8]) -> Result<(), String> {
    let Ok(text) = std::str::from_utf8(bytes) else { return Ok(()) };
    let (lines, bad) = envfile::parse(text);
    let says = |line: &&str| !line.trim().is_empty() && !line.trim_start().starts_with('#');
    let saying = text.strip_prefix('\u{feff}').unwrap_or(text).split('\n').filter(says).count();
    if lines.len() + bad.len() != saying {
        return Err(format!(
            "{saying} lines say something, {} were read, {bad:?} named",
            lines.len()
        ));
    }
    let mut end = 0;
    for line in &lines {
        if line.span.start < end || text.get(line.span.clone()).is_none() {
            return Err(format!("{line:?} stands where it can't stand"));
        }
        end = line.span.end;
    }
    let name = variables::PERCENTAGE;
    let edited = edit::env(text, name, NUMBER);
    let (now, now_bad) = envfile::parse(&edited);
    let set = now.iter().rfind(|line| line.name == name).map(|line| line.value.as_str());
    if set != Some(NUMBER) || now_bad != bad {
        return Err(format!("{edited:?} sets {set:?}"));
    }
    // The line that counts is the last of that name, and stays where it was; or there is a new one at the end.
    let at = lines.iter().rposition(|line| line.name == name);
    let pairs = |lines: &[envfile::Line]| {
        let all =
            lines.iter().enumerate().filter(|(index, _)| *index != at.unwrap_or(lines.len() - 1));
        all.map(|(_, line)| (line.name.clone(), line.value.clone())).collect::<Vec<_>>()
    };
    let was = if at.is_some() {
        pairs(&lines)
    } else {
        lines.iter().map(|l| (l.name.clone(), l.value.clone())).collect()
    };
    if was != pairs(&now) {
        return Err(format!("{text:?} became {edited:?}"));
    }
    let (head, tail) = at.and_then(|at| lines.get(at)).map_or((text, ""), |line| {
        (
            text.get(..line.span.start).unwrap_or_default(),
            text.get(line.span.end..).unwrap_or_default(),
        )
    });
    if edited.starts_with(head) && edited.ends_with(tail) {
        Ok(())
    } else {
        Err(format!("bytes beside the value changed: {text:?} became {edited:?}"))
    }
}

/// Takes lines of `NAME=value` as versions of a ConfigMap, parted by lines of `---`: each is taken or refused as a whole. What is refused
/// leaves the snapshot as it was; what is taken is what a start with it would work with.
///
/// # Errors
/// The law that does not hold.
pub fn configmap(bytes: &[u8]) -> Result<(), String> {
    let Ok(text) = std::str::from_utf8(bytes) else { return Ok(()) };
    let start = |version: Version| {
        let follow = Follow {
            name: "a/b".to_owned(),
            store: Arc::new(Nobody),
            first: First::Version(version),
        };
        let sources = Sources { file: Some(good_file().to_owned()), environment: BTreeMap::new() };
        Control::start_with(sources, Some(follow)).map(|(control, ..)| control)
    };
    let first = BTreeMap::from([(variables::PERCENTAGE.to_owned(), "20".to_owned())]);
    let version = |revision: usize, data: BTreeMap<String, String>| Version {
        revision: revision.to_string(),
        data,
        ..Version::default()
    };
    let control =
        start(version(1, first)).map_err(|faults| format!("not even the first: {faults}"))?;
    for (index, lines) in text.split("\n---\n").enumerate().take(4) {
        let data: BTreeMap<String, String> = lines
            .lines()
            .filter_map(|line| line.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.replace("\\n", "\n")))
            .collect();
        let before = control.live().load_full();
        let _used = control.configmap_seen(version(index + 2, data.clone()), None);
        let after = control.live().load_full();
        let refused = !control.reloads().faults.is_empty();
        if refused && !Arc::ptr_eq(&before, &after) {
            return Err(format!("refused, and something changed: {data:?}"));
        }
        if refused {
            continue;
        }
        let fresh = start(version(1, data.clone())).map_err(|faults| {
            format!("taken while running, refused at the start: {data:?}: {faults}")
        })?;
        let fresh = fresh.live().load_full();
        let told = |key: &str| data.iter().rfind(|(name, _)| variables::sets(name, key));
        let same = after.decide.percentage == fresh.decide.percentage || told(PERCENTAGE).is_none();
        let same_force = after.decide.force == fresh.decide.force || told(FORCE).is_none();
        if !same || !same_force || after.decide.pins != fresh.decide.pins {
            return Err(format!("{data:?} means one thing to who runs and another to who starts"));
        }
    }
    Ok(())
}

/// The file that every run of this process starts from.
fn good_file() -> &'static Path {
    static FILE: OnceLock<PathBuf> = OnceLock::new();
    FILE.get_or_init(|| {
        let path = std::env::temp_dir().join(format!("cutover-fuzz-{}.toml", std::process::id()));
        // If it can't be written the first start says so.
        let _written = std::fs::write(&path, GOOD);
        path
    })
}

/// An API that nobody asks.
struct Nobody;

impl Store for Nobody {
    fn write(&self, _: Patch) -> Result<Version, NotWritten> {
        Err(NotWritten::Refused(String::new()))
    }

    fn read(&self) -> Result<Version, NotWritten> {
        Err(NotWritten::Refused(String::new()))
    }

    fn contact(&self) -> Contact {
        Contact::default()
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;

    const TOML: [&str; 22] = [
        "[rollout]\n",
        "[rollout.domains]\nbilling = 5\n",
        "rollout.percentage = 5\n",
        "rollout = { percentage = 5, salt = \"x\" }\n",
        "rollout = {}\n",
        "rollout = 5\n",
        "percentage = 10   # week 1\n",
        "percentage = '''\n10'''\n",
        "percentage = 0.25\r\n",
        "percentage = 101\n",
        "[[rollout]]\n",
        "salt = \"\"\"\na\"\"\"\n",
        "force = \"new\"\n",
        "audit_file = \"\"\n",
        "pins = { old = [\"ada\"], new = [] }\n",
        "[projects.old]\nurl = \"http://a\"\nanon_key = \"old-anon-secret\"\n",
        "[projects.new]\nurl = \"http://b\"\nanon_key = [\"new-anon-secret\", \"b\"]\n",
        "[projects]\nnew.url = \"http://b\"\nnew.anon_key = \"another-secret\"\n",
        "jwt_secret = \"a-secret-that-is-long-enough-for-hs256\"\n",
        "# [rollout]\n",
        "\u{feff}",
        "x",
    ];
    const LINES: [&str; 16] = [
        "V2_ROLLOUT_PERCENTAGE=10\n",
        "export V2_ROLLOUT_PERCENTAGE = \"10\" # why\r\n",
        "V2_ROLLOUT_PERCENTAGE= # why\n",
        "V2_ROLLOUT_PERCENTAGE='10\n",
        "V2_ROLLOUT_PERCENTAGE=#\n",
        "V2_ROLLOUT_PERCENTAGE=\"a\\\"b\"\n",
        "OTHER=a#b c\n",
        "OTHER=\"\u{e9} # \"\n",
        "SUPABASE_ENV=v2\n",
        "# comment\n",
        "\n",
        "  \r\n",
        "nonsense\n",
        "=1\n",
        "A=1",
        "\u{feff}",
    ];
    const DATA: [&str; 16] = [
        "V2_ROLLOUT_PERCENTAGE=55\n",
        "V2_ROLLOUT_PERCENTAGE=12.5\\n\n",
        "V2_ROLLOUT_PERCENTAGE=\n",
        "V2_ROLLOUT_PERCENTAGE=101\n",
        "CUTOVER_ROLLOUT__PERCENTAGE=7\n",
        "SUPABASE_ENV=production\n",
        "SUPABASE_ENV=v2\n",
        "SUPABASE_ENV=\n",
        "SUPABASE_ENV=staging\n",
        "CUTOVER_ROLLOUT__SALT=other\n",
        "CUTOVER_ROLLOUT__PINS__OLD=[\"ada\"]\n",
        "CUTOVER_ROLLOUT__PINS__NEW=[\"ada\"]\n",
        "CUTOVER_KUBERNETES__CONFIGMAP=x\n",
        "CUTOVER_NO__SUCH=1\n",
        "readme=hello\n",
        "---\n",
    ];

    proptest! {
        #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

        #[test]
        fn the_laws_of_the_file_hold(good in any::<bool>(), parts in vec(select(TOML.to_vec()), 0..8)) {
            let text = format!("{}{}", if good { GOOD } else { "" }, parts.concat());
            prop_assert_eq!(file(text.as_bytes()), Ok(()));
        }

        #[test]
        fn the_laws_of_the_env_file_hold(lines in vec(select(LINES.to_vec()), 0..8), junk in "[ -~\n]{0,30}") {
            prop_assert_eq!(env_file(format!("{}{junk}", lines.concat()).as_bytes()), Ok(()));
        }

        #[test]
        fn the_laws_of_the_configmap_hold(data in vec(select(DATA.to_vec()), 0..7)) {
            prop_assert_eq!(configmap(data.concat().as_bytes()), Ok(()));
        }
    }
}
