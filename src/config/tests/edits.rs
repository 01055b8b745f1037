//! Edits change one value and not one byte more.

use proptest::prelude::*;

use crate::config::edit::{New, NotEditable, env, toml};
use crate::config::envfile;

fn number(text: &str, new: &str) -> String {
    toml(text, "rollout", "percentage", New::Number(new)).unwrap()
}

#[test]
fn toml_is_edited_however_it_is_written() {
    for (before, after) in [
        ("[rollout]\npercentage = 5 # x\n", "[rollout]\npercentage = 7 # x\n"),
        ("[rollout]\r\n  percentage=0.5\r\n", "[rollout]\r\n  percentage=7\r\n"),
        ("rollout.percentage = 5", "rollout.percentage = 7"),
        ("rollout = { salt = 'x', percentage = 5 }", "rollout = { salt = 'x', percentage = 7 }"),
        ("rollout = {}", "rollout = { percentage = 7 }"),
        ("rollout = { salt = 'x' }", "rollout = { percentage = 7, salt = 'x' }"),
        (
            "[rollout] # why\r\nsalt = 'x'\r\n",
            "[rollout] # why\r\npercentage = 7\r\nsalt = 'x'\r\n",
        ),
        ("[rollout]", "[rollout]\npercentage = 7\n"),
        ("# only\n", "# only\n[rollout]\npercentage = 7\n"),
        ("a = 1", "a = 1\n[rollout]\npercentage = 7\n"),
        ("", "[rollout]\npercentage = 7\n"),
        (
            "x = 1\nrollout.salt = 'x'\n[b]\n",
            "x = 1\nrollout.percentage = 7\nrollout.salt = 'x'\n[b]\n",
        ),
        ("rollout.pins.old = []\n", "rollout.percentage = 7\nrollout.pins.old = []\n"),
        ("[rollout.pins]\nold = []\n", "[rollout.pins]\nold = []\n[rollout]\npercentage = 7\n"),
        ("[rollout.pins]\n[rollout]\n[b]\n", "[rollout.pins]\n[rollout]\npercentage = 7\n[b]\n"),
        ("['rollout']\n\"percentage\" = 5\n", "['rollout']\n\"percentage\" = 7\n"),
        (
            "s = '''\n[rollout]\npercentage = 1\n'''\n[rollout]\n",
            "s = '''\n[rollout]\npercentage = 1\n'''\n[rollout]\npercentage = 7\n",
        ),
    ] {
        assert_eq!(number(before, "7"), after, "{before}");
    }
    let forced = toml("[rollout]\nforce = \"\" # none\n", "rollout", "force", New::Word("old"));
    assert_eq!(forced.unwrap(), "[rollout]\nforce = \"old\" # none\n");
    assert_eq!(toml("a = ", "rollout", "x", New::Number("1")), Err(NotEditable::NotToml));
    assert_eq!(toml("rollout = 5", "rollout", "x", New::Number("1")), Err(NotEditable::NoPlace));
}

#[test]
fn env_files_are_edited_in_the_line_that_counts() {
    for (before, after) in [
        ("A=1\n", "A=7\n"),
        ("export A = 1 # why\r\nB=2\r\n", "export A = 7 # why\r\nB=2\r\n"),
        ("A='1'", "A='7'"),
        ("A=1\nA=2\n", "A=1\nA=7\n"),
        ("A=\n", "A=7\n"),
        ("A= # none\n", "A= 7 # none\n"),
        ("B=1", "B=1\nA=7\n"),
        ("", "A=7\n"),
        ("# A=1\nAA=1\n", "# A=1\nAA=1\nA=7\n"),
    ] {
        assert_eq!(env(before, "A", "7"), after, "{before:?}");
    }
}

fn toml_line() -> impl Strategy<Value = String> {
    prop_oneof![
        Just(String::new()),
        Just("# a comment with percentage = 3".to_owned()),
        "[a-z]{1,3}k = [0-9]{1,3}( # [a-z]{0,5})?",
        Just("text = \"[rollout] percentage = 1 # no\"".to_owned()),
        Just("list = [ 1, # one\n  2 ]".to_owned()),
        Just("long = '''\npercentage = 9\n[rollout]\n'''".to_owned()),
    ]
}

/// A text, however its rollout section is written, whose keys don't repeat.
fn document() -> impl Strategy<Value = String> {
    let rollout = prop_oneof![
        Just("[rollout]\n".to_owned()),
        Just("[rollout] # why\npercentage = 12.5   # now\n".to_owned()),
        Just("[rollout]\nsalt = 's'\n\n  percentage=3\n".to_owned()),
        Just("[rollout.pins]\nold = []\n".to_owned()),
        Just(String::new()),
    ];
    let lines = || proptest::collection::vec(toml_line(), 0..4);
    (lines(), lines(), rollout, any::<bool>()).prop_map(|(top, more, rollout, crlf)| {
        let text = format!("{}\n{rollout}[z]\n{}\n", top.join("\n"), more.join("\n"));
        if crlf { text.replace('\n', "\r\n") } else { text }
    })
}

fn without(mut text: toml_edit::DocumentMut) -> String {
    if let Some(table) = text.get_mut("rollout").and_then(toml_edit::Item::as_table_like_mut) {
        table.remove("percentage");
    }
    // Values only.
    let table: toml_edit::DocumentMut = text;
    let mut rows: Vec<_> = flat("", table.as_item());
    rows.sort();
    rows.join("\n")
}

fn flat(prefix: &str, item: &toml_edit::Item) -> Vec<String> {
    match item.as_table_like() {
        Some(table) => table.iter().flat_map(|(k, v)| flat(&format!("{prefix}.{k}"), v)).collect(),
        None => vec![format!("{prefix}={}", item.to_string().trim())],
    }
}

proptest! {
    #[test]
    fn nothing_else_changes_in_toml(text in document(), hundredths in 0u16..=10_000) {
        let Ok(before) = text.parse::<toml_edit::DocumentMut>() else { return Ok(()) };
        let new = crate::decide::percentage::Percentage::from_hundredths(hundredths).unwrap().to_string();
        let edited = number(&text, &new);
        let after: toml_edit::DocumentMut = edited.parse().unwrap();
        let value = after["rollout"]["percentage"].as_value().unwrap();
        let read = value.as_float().or_else(|| value.as_integer().map(|n| n as f64)).unwrap();
        prop_assert_eq!(&read.to_string(), &new);
        prop_assert_eq!(without(before), without(after));
        // Every line but one is still there, byte for byte and in its order.
        let mut lines = edited.split_inclusive('\n');
        let changed = text.split_inclusive('\n').filter(|old| !lines.clone().any(|new| {
            let same = new == *old;
            if same { lines.find(|l| l == old); }
            same
        })).count();
        prop_assert!(changed <= 1, "{:?} -> {:?}", text, edited);
        prop_assert_eq!(text.contains("\r\n"), edited.contains("\r\n"));
        prop_assert_eq!(number(&edited, &new), edited, "twice is once");
    }

    #[test]
    fn nothing_else_changes_in_an_env_file(
        lines in proptest::collection::vec("(export )?[AB]=(\"[a-z #]{0,4}\"|'[a-z]{0,4}'|[a-z]{0,4})( # [a-z]{0,3})?|# A=1|", 0..6),
        crlf in any::<bool>(),
    ) {
        let newline = if crlf { "\r\n" } else { "\n" };
        let text: String = lines.iter().map(|line| format!("{line}{newline}")).collect();
        let edited = env(&text, "A", "42");
        let (before, bad) = envfile::parse(&text);
        let (after, still_bad) = envfile::parse(&edited);
        prop_assert_eq!(bad, still_bad);
        prop_assert_eq!(&after.iter().rfind(|line| line.name == "A").unwrap().value, "42");
        let others = |lines: &[envfile::Line]| -> Vec<(String, String)> {
            let last = lines.iter().rposition(|line| line.name == "A");
            let kept = lines.iter().enumerate().filter(|(i, _)| Some(*i) != last);
            kept.map(|(_, line)| (line.name.clone(), line.value.clone())).collect()
        };
        prop_assert_eq!(others(&before), others(&after));
    }
}
