//! What a request names, in its path, its body or its metadata, and the body in other words.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderName;

use super::buckets::{Naming, Reading, Words};
use super::endpoint::{Endpoint, Kind};
use super::json::{Editor, Value};
use super::{Asked, Refused, Settings, tus};
use crate::side::Side;

/// Members of bodies that name something.
const NAMES: [&str; 10] = [
    "bucketId",
    "cursor",
    "destinationBucket",
    "destinationKey",
    "id",
    "name",
    "paths",
    "prefix",
    "prefixes",
    "sourceKey",
];

/// A body and what it names.
#[derive(Debug)]
struct Names<'a> {
    editor: Editor<'a>,
    root: Value<'a>,
    found: [Option<Value<'a>>; NAMES.len()],
}

impl<'a> Names<'a> {
    /// `None` when it is no JSON that others read as it is read here.
    fn read(bytes: &'a [u8]) -> Option<Self> {
        let (editor, root) = Editor::read(bytes)?;
        Some(Self { editor, root, found: root.pick(NAMES)? })
    }

    fn get(&self, key: &str) -> Option<Value<'a>> {
        let place = NAMES.iter().position(|name| *name == key)?;
        *self.found.get(place)?
    }
}

pub(super) const UPLOAD_METADATA: HeaderName = HeaderName::from_static("upload-metadata");

/// The buckets and objects of a request, read in the dialect that they are in.
#[derive(Debug)]
pub(super) struct Meant<'m, 'a> {
    /// The bucket as the client wrote it; `None` when there is none.
    pub(super) bucket: Option<Cow<'a, str>>,
    pub(super) reading: Reading<'m>,
    /// Names of objects in it that must not meet another bucket's.
    pub(super) objects: Vec<String>,
    /// Where a copy or a move leads.
    pub(super) destination: Option<(String, Reading<'m>, String)>,
    body: Option<Names<'a>>,
}

impl<'m, 'a> Meant<'m, 'a> {
    /// Reads a request.
    ///
    /// # Errors
    /// [`Refused::Unreadable`] when a body that has to be read is no JSON, or gives a name that is no text: Storage makes a text of it.
    pub(super) fn of(
        settings: &'m Settings,
        endpoint: &Endpoint,
        asked: &Asked<'a>,
    ) -> Result<Self, Refused> {
        let body = match asked.body {
            Some(bytes) => Some(Names::read(bytes).ok_or(Refused::Unreadable)?),
            None => None,
        };
        let mut meant = Self {
            bucket: endpoint.bucket(asked.tail),
            reading: Reading::Same,
            objects: Vec::new(),
            destination: None,
            body,
        };
        meant.read(settings, endpoint, asked)?;
        Ok(meant)
    }

    fn read(
        &mut self,
        settings: &'m Settings,
        endpoint: &Endpoint,
        asked: &Asked<'a>,
    ) -> Result<(), Refused> {
        let map = &settings.map;
        let naming = match endpoint.kind {
            Kind::Bucket | Kind::ChangeBucket | Kind::CreateBucket => {
                if endpoint.kind == Kind::CreateBucket {
                    self.bucket = self.text("id")?.or(self.text("name")?).map(Cow::Owned);
                }
                self.reading = self.bucket.as_deref().map_or(Reading::Same, |b| map.read_bucket(b));
                return Ok(());
            }
            Kind::List => Naming::Folder,
            Kind::ListV2 => Naming::Prefix,
            _ => Naming::Object,
        };
        let names: Vec<String> = match endpoint.kind {
            Kind::List | Kind::ListV2 => vec![self.text("prefix")?.unwrap_or_default()],
            Kind::SignMany => self.texts("paths")?,
            Kind::RemoveMany => self.texts("prefixes")?,
            Kind::Copy | Kind::Move => {
                self.bucket = self.text("bucketId")?.map(Cow::Owned);
                self.text("sourceKey")?.into_iter().collect()
            }
            Kind::UploadBegins => {
                let metadata = asked.headers.get(UPLOAD_METADATA).and_then(|m| m.to_str().ok());
                let (bucket, object) = metadata.map(tus::names).unwrap_or_default();
                self.bucket = bucket.map(Cow::Owned);
                object.into_iter().collect()
            }
            Kind::UploadGoesOn => return Ok(()),
            _ => endpoint.rest(asked.tail).map(Cow::into_owned).into_iter().collect(),
        };
        let Some(bucket) = self.bucket.as_deref() else { return Ok(()) };
        let borrowed: Vec<&str> = names.iter().map(String::as_str).collect();
        self.reading = map.read(bucket, &borrowed, naming);
        if naming == Naming::Object {
            self.objects = names;
        }
        if matches!(endpoint.kind, Kind::Copy | Kind::Move) {
            let key = self.text("destinationKey")?.unwrap_or_default();
            let to = self.text("destinationBucket")?.filter(|to| !to.is_empty());
            let to = to.unwrap_or_else(|| bucket.to_owned());
            let reading = map.read(&to, &[&key], Naming::Object);
            self.destination = Some((to, reading, key));
        }
        Ok(())
    }

    /// A text of the body; `None` when there is none, or null.
    fn text(&self, key: &str) -> Result<Option<String>, Refused> {
        let value = self.body.as_ref().and_then(|body| body.get(key));
        value.filter(|value| !value.is_null()).map(owned).transpose()
    }

    /// A list of texts of the body.
    fn texts(&self, key: &str) -> Result<Vec<String>, Refused> {
        let value = self.body.as_ref().and_then(|body| body.get(key));
        value.map(listed).unwrap_or_default().into_iter().map(owned).collect()
    }

    /// The one owner of all that is named, if there is one.
    pub(super) fn owner(&self, settings: &Settings) -> Option<Side> {
        let [source, destination] = self.owners(settings);
        source.filter(|_| self.destination.is_none() || source == destination)
    }

    /// The owners of what is named first, and of where a copy or a move leads.
    pub(super) fn owners(&self, settings: &Settings) -> [Option<Side>; 2] {
        let source =
            self.bucket.as_deref().and_then(|bucket| settings.owner_of(bucket, self.reading));
        let destination = self
            .destination
            .as_ref()
            .and_then(|(bucket, reading, _)| settings.owner_of(bucket, *reading));
        [source, destination]
    }

    /// The body in a side's words; `None` when it stays.
    pub(super) fn say(
        self,
        kind: Kind,
        words: Option<&Words>,
        destination: Option<&Words>,
    ) -> Option<Vec<u8>> {
        let mut body = self.body?;
        match (kind, words) {
            (Kind::Copy | Kind::Move, _) => {
                let target = self.destination.map(|(bucket, ..)| bucket).unwrap_or_default();
                body.say_two(words, destination, &target);
            }
            (_, None) => return None,
            (Kind::List, Some(words)) => {
                match body.get("prefix").filter(|prefix| !prefix.is_null()) {
                    Some(_) => body.edit("prefix", |prefix| words.folder(prefix)),
                    None => body.set("prefix", &words.folder("").unwrap_or_default()),
                }
            }
            (Kind::ListV2, Some(words)) => {
                match body.get("prefix").filter(|prefix| !prefix.is_nothing()) {
                    Some(_) => body.edit("prefix", |prefix| words.name(prefix)),
                    None => body.set("prefix", &words.name("").unwrap_or_default()),
                }
                body.edit("cursor", |cursor| say_cursor(cursor, words));
            }
            (Kind::SignMany | Kind::RemoveMany, Some(words)) => {
                let key = if kind == Kind::SignMany { "paths" } else { "prefixes" };
                for name in body.get(key).map(listed).unwrap_or_default() {
                    body.edit_value(name, |name| words.name(name));
                }
            }
            (Kind::CreateBucket | Kind::ChangeBucket, Some(words)) => {
                for key in ["id", "name"] {
                    body.edit(key, |name| words.bucket(name).map(str::to_owned));
                }
            }
            _ => return None,
        }
        body.editor.done()
    }
}

/// The values of a list. What is no list is a list of one: Storage's validation takes it for that (Ajv, `coerceTypes: "array"`).
fn listed(value: Value<'_>) -> Vec<Value<'_>> {
    if value.is_list() { value.items() } else { vec![value] }
}

/// A name. What is no text would become one behind us (`5` is `"5"`, `["a"]` is `"a"`), and mean what was not said in the side's words.
fn owned(value: Value<'_>) -> Result<String, Refused> {
    value.text().map(Cow::into_owned).ok_or(Refused::Unreadable)
}

impl<'a> Names<'a> {
    /// A copy or a move: both ends, and the second bucket where the two are no longer the same.
    fn say_two(&mut self, source: Option<&Words>, destination: Option<&Words>, target: &str) {
        let Some(bucket) = self.get("bucketId") else { return };
        if let Some(words) = source {
            self.edit("bucketId", |bucket| words.bucket(bucket).map(str::to_owned));
            self.edit("sourceKey", |key| words.name(key));
        }
        if let Some(words) = destination {
            self.edit("destinationKey", |key| words.name(key));
        }
        let own = bucket.text().unwrap_or_default();
        let from = source.and_then(|words| words.bucket(&own)).unwrap_or(&own);
        let to = destination.and_then(|words| words.bucket(target)).unwrap_or(target);
        match self.get("destinationBucket") {
            Some(named) if !named.is_nothing() => self.editor.replace(named, to),
            _ if from == to => {}
            _ => self.set("destinationBucket", to),
        }
    }

    fn set(&mut self, key: &str, text: &str) {
        self.editor.set(self.root, key, text);
    }

    fn edit(&mut self, key: &str, say: impl FnOnce(&str) -> Option<String>) {
        if let Some(value) = self.get(key) {
            self.edit_value(value, say);
        }
    }

    fn edit_value(&mut self, value: Value<'a>, say: impl FnOnce(&str) -> Option<String>) {
        if let Some(said) = value.text().and_then(|text| say(&text)) {
            self.editor.replace(value, &said);
        }
    }
}

/// A page's cursor holds the last object's name: lines of a letter and a value, in base64, the name's letter being `l`. One that is
/// made otherwise stays as it is.
pub(crate) fn say_cursor(cursor: &str, words: &Words) -> Option<String> {
    let text = String::from_utf8(STANDARD.decode(cursor).ok()?).ok()?;
    let mut is_changed = false;
    let lines = text.split('\n').map(|line| {
        let name = line.strip_prefix("l:").and_then(|name| words.name(name));
        is_changed |= name.is_some();
        name.map_or_else(|| line.to_owned(), |name| format!("l:{name}"))
    });
    let said = lines.collect::<Vec<_>>().join("\n");
    is_changed.then(|| STANDARD.encode(said))
}
