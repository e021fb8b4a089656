//! One site's API: reads, lists, kinds and watches.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use http::Request;
use serde_json::Value;

use super::answer::{Answer, Server, request, sound};
use super::crd;
use super::error::{Error, Tried};
use super::kind::{Kind, ObjRef, Typed};
use super::view::{Registry, Scope, View};
use super::{config, deadline::Deadline};
use crate::history::event::Site;
use crate::plan::model::SiteRef;

/// Objects per list page.
const PAGE: u32 = 500;

/// One site: its client, the kinds that it serves and its watches.
pub struct Cluster {
    site: Site,
    url: String,
    client: kube::Client,
    kinds: Mutex<HashMap<(String, String), Kind>>,
    views: Registry,
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster")
            .field("site", &self.site)
            .field("url", &self.url)
            .finish_non_exhaustive()
    }
}

impl Cluster {
    /// Opens a site without calling it. Relative kubeconfig paths are relative to `base`.
    pub async fn open(site: Site, wanted: &SiteRef, base: &Path) -> Result<Arc<Self>, Error> {
        let opened = config::open(site, wanted, base).await?;
        Ok(Self::with_client(site, opened.client, opened.url))
    }

    /// Opens a site and makes sure that it answers.
    pub async fn connect(site: Site, wanted: &SiteRef, base: &Path) -> Result<Arc<Self>, Error> {
        let cluster = Self::open(site, wanted, base).await?;
        cluster.versions().await?;
        Ok(cluster)
    }

    /// A site behind a given client.
    pub fn with_client(site: Site, client: kube::Client, url: String) -> Arc<Self> {
        Arc::new(Self {
            site,
            url,
            client,
            kinds: Mutex::default(),
            views: Registry::default(),
        })
    }

    /// Which site this is.
    pub const fn site(&self) -> Site {
        self.site
    }

    /// The API server's address.
    pub fn url(&self) -> &str {
        &self.url
    }

    pub(super) const fn client(&self) -> &kube::Client {
        &self.client
    }

    pub(super) const fn views(&self) -> &Registry {
        &self.views
    }

    pub(super) fn tried(&self, what: impl Into<String>) -> Tried {
        Tried {
            site: self.site,
            what: what.into(),
        }
    }

    /// Sends a request; the answer may be an error answer.
    pub(super) async fn exchange(
        &self,
        tried: &Tried,
        request: &Request<Vec<u8>>,
    ) -> Result<Answer, Error> {
        let server = Server {
            client: &self.client,
            url: &self.url,
        };
        server.exchange(tried, request).await
    }

    /// GETs a path as JSON.
    pub(super) async fn fetch(&self, tried: &Tried, path: &str) -> Result<Value, Error> {
        let request = request(tried, "GET", path, None)?;
        self.exchange(tried, &request).await?.json(tried)
    }

    /// Reads an object as it is.
    pub async fn read(&self, object: &ObjRef) -> Result<Value, Error> {
        let tried = self.tried(format!("GET {object}"));
        sound(&tried, object)?;
        self.fetch(&tried, &object.path()).await
    }

    /// Reads a typed object.
    pub async fn get<T: Typed>(&self, namespace: &str, name: &str) -> Result<T, Error> {
        let object = ObjRef::of::<T>(namespace, name);
        let value = self.read(&object).await?;
        self.decode(&format!("GET {object}"), value)
    }

    /// Reads a typed object; `None` when there is none. A kind that is not served is an error.
    pub async fn find<T: Typed>(&self, namespace: &str, name: &str) -> Result<Option<T>, Error> {
        match self.get(namespace, name).await {
            Ok(found) => Ok(Some(found)),
            Err(e) if e.is_not_found() => Ok(None),
            Err(e) => Err(e),
        }
    }

    pub(super) fn decode<T: Typed>(&self, what: &str, value: Value) -> Result<T, Error> {
        serde_json::from_value(value).map_err(|e| Error::Answer {
            tried: self.tried(what),
            why: e.to_string(),
        })
    }

    /// Lists typed objects.
    pub async fn list<T: Typed>(&self, scope: &Scope) -> Result<Vec<T>, Error> {
        let what = format!("LIST {}", T::KIND);
        let values = self.list_values(&T::KIND, scope).await?;
        values.into_iter().map(|v| self.decode(&what, v)).collect()
    }

    /// Lists objects as they are, following pages; starts over once when a page token expires.
    pub async fn list_values(&self, kind: &Kind, scope: &Scope) -> Result<Vec<Value>, Error> {
        let tried = self.tried(format!("LIST {kind} {scope}"));
        let mut token = String::new();
        let mut found = Vec::new();
        let mut expired = false;
        loop {
            let path = scope.list_path(kind, PAGE, &token);
            let mut page = match self.fetch(&tried, &path).await {
                Err(Error::Http { code: 410, .. }) if !expired => {
                    expired = true;
                    token.clear();
                    found.clear();
                    continue;
                }
                other => other?,
            };
            let Some(Value::Array(items)) = page.get_mut("items").map(Value::take) else {
                return Err(Error::Answer {
                    tried,
                    why: "a list without items".into(),
                });
            };
            found.extend(items.into_iter().map(|mut item| {
                // Lists leave out what the list itself says.
                item["apiVersion"] = kind.api_version().into();
                item["kind"] = kind.kind.as_ref().into();
                item
            }));
            token = match page.pointer("/metadata/continue").and_then(Value::as_str) {
                Some(next) if !next.is_empty() => next.to_owned(),
                _ => return Ok(found),
            };
        }
    }

    /// The kind behind an apiVersion and kind, from our own table or the server's discovery.
    pub async fn resolve(&self, api_version: &str, kind: &str) -> Result<Kind, Error> {
        if let Some(known) = crd::known(api_version, kind) {
            return Ok(known);
        }
        self.discover(api_version, kind).await
    }

    /// Whether the server serves a kind, those of our own table too.
    ///
    /// # Errors
    /// [`Error::MissingKind`] if it does not.
    pub async fn serves(&self, kind: &Kind) -> Result<(), Error> {
        let found = self.discover(&kind.api_version(), &kind.kind).await;
        found.map(drop)
    }

    /// The kind behind an apiVersion and kind as the server has it, asked for once.
    async fn discover(&self, api_version: &str, kind: &str) -> Result<Kind, Error> {
        let key = (api_version.to_owned(), kind.to_owned());
        if let Some(kind) = self
            .kinds
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&key)
        {
            return Ok(kind.clone());
        }
        let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
        let tried = self.tried(format!("discovery of {api_version} {kind}"));
        let missing = || Error::MissingKind {
            tried: tried.clone(),
            kind: format!("{api_version} {kind}"),
        };
        let base = Kind::namespaced("", "", "", "");
        let base = Kind {
            group: group.to_owned().into(),
            version: version.to_owned().into(),
            ..base
        };
        let list = match self.fetch(&tried, &base.base_path()).await {
            Err(Error::MissingKind { .. } | Error::NotFound { .. }) => return Err(missing()),
            other => other?,
        };
        let resources = list["resources"]
            .as_array()
            .map_or(&[] as &[Value], Vec::as_slice);
        let text = |r: &Value, field: &str| r[field].as_str().unwrap_or_default().to_owned();
        let found = resources
            .iter()
            .find(|r| text(r, "kind") == kind && !text(r, "name").contains('/'))
            .ok_or_else(missing)?;
        let resolved = Kind {
            kind: kind.to_owned().into(),
            plural: text(found, "name").into(),
            namespaced: found["namespaced"].as_bool().unwrap_or(false),
            ..base
        };
        self.kinds
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(key, resolved.clone());
        Ok(resolved)
    }

    /// The shared watch of a kind; it starts with the first call for this kind and scope.
    pub fn view<T: Typed>(&self, scope: &Scope) -> View<T> {
        self.views.view(self.site, &self.client, scope)
    }

    /// Waits until an object is gone: deleted, with all its finalizers done.
    pub async fn until_gone<T: Typed>(
        &self,
        deadline: &Deadline,
        namespace: &str,
        name: &str,
    ) -> Result<(), Error> {
        let scope = if T::KIND.namespaced {
            Scope::Namespace(namespace.to_owned())
        } else {
            Scope::All
        };
        self.view::<T>(&scope)
            .until_gone(deadline, namespace, name)
            .await
    }
}
