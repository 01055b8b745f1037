//! What is asked of the Kubernetes API, and what its answers mean.
//!
//! `list` and `watch` name the one ConfigMap by a field selector on its name, which is what lets a Role with `resourceNames` allow them.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use futures_util::{Stream, StreamExt as _};
use http::Uri;
use hyper_util::client::legacy;
use hyper_util::rt::TokioExecutor;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{ListParams, Patch as KubePatch, PatchParams, WatchEvent, WatchParams};
use kube::client::{Body, ConfigExt as _};
use kube::config::AuthInfo;
use kube::{Api, Client, Config, Error};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde_json::{Value, json};
use tower::{BoxError, ServiceBuilder};

use crate::config::configmap::{Patch, Said, Version};
use crate::config::startup::Kubernetes;
use crate::observe::watching::WatchFailure;
use crate::outbound::innermost;

/// Where a pod finds its own namespace.
const NAMESPACE_FILE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/namespace";
/// The annotation with the highest epoch that any replica has reached.
const EPOCH: &str = "cutover/epoch";
/// Who made the last change through Cutover, and why: for the audits of the other replicas.
const ACTOR: &str = "cutover/actor";
const REASON: &str = "cutover/reason";
/// An annotation above this was not written by us, and no reader of JSON could tell it from its neighbour.
const HIGHEST_EPOCH: u64 = 1 << 53;

/// How a question failed.
#[derive(Clone, Debug)]
pub(super) struct Failed {
    pub(super) kind: Kind,
    /// In words for an operator.
    pub(super) why: String,
}

/// What a failure means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Counted as this.
    Watch(WatchFailure),
    /// 409: another version stands.
    Conflict,
    /// Any other refusal of what was asked.
    Refused,
}

/// The one ConfigMap.
#[derive(Clone)]
pub(super) struct Place {
    api: Api<ConfigMap>,
    name: String,
    /// For a watch.
    watch_seconds: u32,
}

/// One word of the API.
pub(super) enum Word {
    /// The ConfigMap as it is now.
    Is(Version),
    /// It was deleted.
    Gone,
    /// Only a newer resource version to go on from.
    Bookmark,
}

/// A list: what there is, and where a watch goes on.
pub(super) struct Listed {
    pub(super) version: Option<Version>,
    pub(super) revision: String,
}

/// The namespace: the settings', or the pod's own.
pub(super) fn namespace(settings: &Kubernetes) -> String {
    let own = || fs::read_to_string(NAMESPACE_FILE).ok().map(|text| text.trim().to_owned());
    let named = settings.namespace.clone().or_else(own);
    named.filter(|name| !name.is_empty()).unwrap_or_else(|| "default".to_owned())
}

impl Place {
    /// Makes a client; connects to nothing yet.
    pub(super) fn new(settings: &Kubernetes) -> Result<Self, Failed> {
        let config = config(settings).map_err(|why| failed(WatchFailure::Unreachable, why))?;
        let unusable = |error: &Error| failed(WatchFailure::Unreachable, innermost(error));
        let https = config.rustls_https_connector().map_err(|error| unusable(&error))?;
        let http = legacy::Client::builder(TokioExecutor::new()).build::<_, Body>(https);
        // Kube's own stack would retry for minutes by itself, and log what we log.
        let service = ServiceBuilder::new()
            .layer(config.base_uri_layer())
            .option_layer(config.auth_layer().map_err(|error| unusable(&error))?)
            .map_err(BoxError::from)
            .service(http);
        let namespace = namespace(settings);
        let api = Api::namespaced(Client::new(service, namespace.clone()), &namespace);
        let watch_seconds = u32::try_from(settings.watch_timeout.as_secs()).unwrap_or(u32::MAX);
        Ok(Self { api, name: settings.name.clone(), watch_seconds })
    }

    fn selector(&self) -> String {
        format!("metadata.name={}", self.name)
    }

    pub(super) async fn list(&self, limit: Duration) -> Result<Listed, Failed> {
        let list = ListParams::default().fields(&self.selector());
        let listed = within(limit, self.api.list(&list)).await?;
        let revision = listed.metadata.resource_version.unwrap_or_default();
        let mut items = listed.items.into_iter();
        let own = items.find(|item| item.metadata.name.as_ref() == Some(&self.name));
        Ok(Listed { version: own.map(version), revision })
    }

    pub(super) async fn get(&self, limit: Duration) -> Result<Version, Failed> {
        within(limit, self.api.get(&self.name)).await.map(version)
    }

    pub(super) async fn patch(&self, patch: &Patch, limit: Duration) -> Result<Version, Failed> {
        let params =
            PatchParams { field_manager: Some("cutover".to_owned()), ..PatchParams::default() };
        let merge = KubePatch::Merge(merge_of(patch));
        within(limit, self.api.patch(&self.name, &params, &merge)).await.map(version)
    }

    /// Begins a watch behind `revision`. Each item is a word with the revision to go on from.
    pub(super) async fn watch(
        &self,
        revision: &str,
        limit: Duration,
    ) -> Result<impl Stream<Item = Result<(Word, Option<String>), Failed>> + use<>, Failed> {
        let params = WatchParams::default().fields(&self.selector()).timeout(self.watch_seconds);
        let events = within(limit, self.api.watch(&params, revision)).await?;
        Ok(events.map(|event| match event.map_err(|error| why(&error))? {
            WatchEvent::Added(map) | WatchEvent::Modified(map) => {
                let revision = map.metadata.resource_version.clone();
                Ok((Word::Is(version(map)), revision))
            }
            WatchEvent::Deleted(map) => Ok((Word::Gone, map.metadata.resource_version)),
            WatchEvent::Bookmark(mark) => {
                Ok((Word::Bookmark, Some(mark.metadata.resource_version)))
            }
            WatchEvent::Error(status) => Err(why(&Error::Api(status))),
        }))
    }
}

async fn within<T>(
    limit: Duration,
    asking: impl Future<Output = Result<T, Error>>,
) -> Result<T, Failed> {
    match tokio::time::timeout(limit, asking).await {
        Ok(answer) => answer.map_err(|error| why(&error)),
        Err(_) => Err(failed(WatchFailure::Silent, format!("no answer in {limit:?}"))),
    }
}

fn config(settings: &Kubernetes) -> Result<Config, String> {
    let Some(api) = &settings.api else {
        return Config::incluster().map_err(|error| {
            let cause = innermost(&error);
            format!(
                "this is no pod with a service account ({cause}), and kubernetes.api_url is not set"
            )
        });
    };
    let url: Uri = api.url.parse().map_err(|_| "kubernetes.api_url is no URL".to_owned())?;
    let mut config = Config::new(url);
    if let Some(path) = &api.ca {
        let name = path.display();
        let pem = fs::read(path).map_err(|error| format!("{name}: {error}"))?;
        let read = CertificateDer::pem_slice_iter(&pem).map(|one| one.map(|der| der.to_vec()));
        let ca: Vec<Vec<u8>> = read
            .collect::<Result<_, _>>()
            .map_err(|error| format!("{name}: no PEM certificate: {error:?}"))?;
        config.root_cert = Some(ca);
    }
    let token_file = api.token_file.as_ref().map(|path| path.display().to_string());
    config.auth_info = AuthInfo { token_file, ..AuthInfo::default() };
    Ok(config)
}

fn version(map: ConfigMap) -> Version {
    let annotations = map.metadata.annotations.unwrap_or_default();
    let epoch = annotations.get(EPOCH).and_then(|text| text.trim().parse::<u64>().ok());
    let said = annotations.get(ACTOR).map(|actor| Said {
        actor: actor.clone(),
        reason: annotations.get(REASON).cloned().unwrap_or_default(),
    });
    Version {
        revision: map.metadata.resource_version.unwrap_or_default(),
        data: map.data.unwrap_or_default(),
        epoch: epoch.filter(|epoch| *epoch <= HIGHEST_EPOCH).unwrap_or_default(),
        said,
    }
}

/// A merge patch leaves alone what it does not name; with a resource version in it, the API refuses it when another one stands.
fn merge_of(patch: &Patch) -> Value {
    let mut annotations = BTreeMap::from([(EPOCH, Some(patch.epoch.to_string()))]);
    let said = patch.said.clone();
    annotations.insert(ACTOR, said.as_ref().map(|said| said.actor.clone()));
    annotations.insert(REASON, said.map(|said| said.reason));
    let metadata = json!({ "resourceVersion": patch.revision, "annotations": annotations });
    if patch.data.is_empty() {
        return json!({ "metadata": metadata });
    }
    json!({ "metadata": metadata, "data": patch.data })
}

fn failed(kind: WatchFailure, why: impl Into<String>) -> Failed {
    Failed { kind: Kind::Watch(kind), why: why.into() }
}

fn why(error: &Error) -> Failed {
    match error {
        Error::Api(status) => {
            let said = format!("the API answered {}: {}", status.code, status.message);
            let kind = match status.code {
                401 | 403 => WatchFailure::Forbidden,
                404 => WatchFailure::Missing,
                410 => WatchFailure::Gone,
                409 => return Failed { kind: Kind::Conflict, why: said },
                400..=499 if status.code != 429 && status.code != 408 => {
                    return Failed { kind: Kind::Refused, why: said };
                }
                _ => WatchFailure::Unreachable,
            };
            failed(kind, said)
        }
        Error::SerdeError(_) | Error::FromUtf8(_) | Error::LinesCodecMaxLineLengthExceeded => {
            failed(WatchFailure::Unreadable, "an answer that is no ConfigMap")
        }
        Error::Auth(error) => failed(WatchFailure::Forbidden, innermost(error)),
        error => failed(WatchFailure::Unreachable, innermost(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patch_names_its_version_and_nothing_that_it_does_not_change() {
        let said = Some(Said { actor: "cli:ada".into(), reason: "week 2".into() });
        let data = BTreeMap::from([("V2_ROLLOUT_PERCENTAGE".to_owned(), "10".to_owned())]);
        let patch = Patch { revision: "7".into(), data, epoch: 3, said };
        assert_eq!(
            merge_of(&patch),
            json!({
                "metadata": { "resourceVersion": "7", "annotations": {
                    "cutover/epoch": "3", "cutover/actor": "cli:ada", "cutover/reason": "week 2",
                } },
                "data": { "V2_ROLLOUT_PERCENTAGE": "10" },
            })
        );
        // A raised epoch is nobody's change: the words of the last one go.
        let raise = Patch { data: BTreeMap::new(), said: None, ..patch };
        assert_eq!(
            merge_of(&raise),
            json!({ "metadata": { "resourceVersion": "7", "annotations": {
                "cutover/epoch": "3", "cutover/actor": null, "cutover/reason": null,
            } } })
        );
    }

    #[test]
    fn an_epoch_that_can_not_be_ours_is_none() {
        for (text, want) in [
            ("7", 7),
            (" 7 ", 7),
            ("-1", 0),
            ("", 0),
            ("seven", 0),
            ("9007199254740992", 1 << 53),
            ("9007199254740993", 0),
            ("99999999999999999999", 0),
        ] {
            let map: ConfigMap = serde_json::from_value(json!({
                "metadata": { "resourceVersion": "1", "annotations": { "cutover/epoch": text } },
            }))
            .unwrap();
            assert_eq!(version(map).epoch, want, "{text}");
        }
    }
}
