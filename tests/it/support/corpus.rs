//! The corpus of `fixtures/smuggling.json`, which says itself how it is read. `tests/e2e` reads it, too.

use serde::Deserialize;

const CORPUS: &str = include_str!("../fixtures/smuggling.json");

#[derive(Deserialize)]
struct Corpus {
    macros: std::collections::BTreeMap<String, String>,
    cases: Vec<Case>,
}

/// How a connection ends.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Ends {
    Canary,
    Refused,
    Cut,
    Eof,
}

/// One case, with what is in braces put in its place.
#[derive(Clone, Debug, Deserialize)]
pub struct Case {
    pub class: String,
    pub name: String,
    pub send: String,
    #[serde(default)]
    pub sees: Vec<String>,
    #[serde(default)]
    pub own: usize,
    pub ends: Ends,
    pub status: Option<u16>,
    #[serde(default)]
    pub absent: Vec<String>,
    #[serde(default)]
    pub present: Vec<String>,
    pub trailers: Option<Vec<String>>,
    /// Every target of this case has it.
    #[serde(skip)]
    pub id: String,
}

impl Case {
    /// Class and name.
    pub fn title(&self) -> String {
        format!("{}: {}", self.class, self.name)
    }

    pub fn canary(&self) -> String {
        format!("/rest/v1/{}/canary", self.id)
    }

    pub fn smuggled(&self) -> String {
        format!("/rest/v1/{}/smuggled", self.id)
    }

    /// The case and the canary behind it.
    pub fn bytes(&self) -> Vec<u8> {
        let canary = format!("GET {} HTTP/1.1\r\nhost: a\r\n\r\n", self.canary());
        bytes(&(self.send.clone() + &canary))
    }
}

/// One byte per character.
fn bytes(text: &str) -> Vec<u8> {
    text.chars().map(|c| u8::try_from(c).unwrap()).collect()
}

/// All cases.
pub fn cases() -> Vec<Case> {
    let corpus: Corpus = serde_json::from_str(CORPUS).unwrap();
    let macros: Vec<(String, String)> = corpus.macros.into_iter().collect();
    let filled = |(index, mut case): (usize, Case)| {
        case.id = format!("c{index:03}");
        case.send = fill(&case.send, &macros, &case.id);
        case.sees = case.sees.iter().map(|text| fill(text, &macros, &case.id)).collect();
        case
    };
    corpus.cases.into_iter().enumerate().map(filled).collect()
}

fn fill(text: &str, macros: &[(String, String)], id: &str) -> String {
    let targets = |text: String| {
        text.replace("{path}", &format!("/rest/v1/{id}"))
            .replace("{canary}", &format!("/rest/v1/{id}/canary"))
            .replace("{function}", &format!("/functions/v1/{id}"))
    };
    let mut text = text.to_owned();
    for (name, part) in macros {
        let part = targets(part.clone());
        let length = part.len();
        text = text
            .replace(&format!("{{{name}}}"), &part)
            .replace(&format!("{{#{name}}}"), &length.to_string())
            .replace(&format!("{{#x:{name}}}"), &format!("{length:x}"));
    }
    repeated(&targets(text))
}

/// `{x*9000}` is nine thousand times x.
fn repeated(text: &str) -> String {
    let Some((before, rest)) = text.split_once('{') else { return text.to_owned() };
    let inner = rest.split_once('}').map(|(inner, behind)| (inner.split_once('*'), behind));
    match inner {
        Some((Some((what, times)), behind))
            if what.len() == 1 && times.parse::<usize>().is_ok() =>
        {
            let part = what.repeat(times.parse().unwrap());
            format!("{before}{part}{}", repeated(behind))
        }
        _ => format!("{before}{{{}", repeated(rest)),
    }
}
