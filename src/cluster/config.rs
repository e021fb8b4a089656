//! From the plan's site reference to a client: kubeconfig, context, timeouts.

use std::path::{Path, PathBuf};
use std::time::Duration;

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

use super::error::{Error, chain};
use crate::history::event::Site;
use crate::plan::model::SiteRef;

/// Log targets that shout about every failed request. Outages are our subject, and each failure
/// reaches the caller as a typed error, so a log filter should hold these at `off`.
pub const QUIET_TARGETS: &[&str] = &["kube_client::client::builder", "kube_runtime::watcher"];

/// How long a TCP connection to an API server may take. A site without power swallows packets, and
/// waits retry by themselves, so this is shorter than kube's default.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A client and what it talks to.
pub(super) struct Opened {
    /// The client.
    pub(super) client: Client,
    /// The server's address.
    pub(super) url: String,
}

/// Builds the client of a site without calling it.
pub(super) async fn open(site: Site, wanted: &SiteRef, base: &Path) -> Result<Opened, Error> {
    let (file, kubeconfig) = load(site, wanted, base)?;
    let problem = |why: String, hint: String| Error::Kubeconfig {
        site,
        file: file.clone(),
        why,
        hint,
    };
    let names: Vec<String> = kubeconfig.contexts.iter().map(|c| c.name.clone()).collect();
    let context = wanted
        .context
        .clone()
        .or_else(|| kubeconfig.current_context.clone());
    match &context {
        None => {
            return Err(problem(
                "it has no current context and the plan names none".into(),
                format!("Set sites.{site}.context to {}", one_of(&names)),
            ));
        }
        Some(name) if !names.contains(name) => {
            return Err(problem(
                format!("it has no context {name:?}"),
                format!("Set sites.{site}.context to {}", one_of(&names)),
            ));
        }
        Some(_) => {}
    }
    let options = KubeConfigOptions {
        context,
        ..KubeConfigOptions::default()
    };
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &options)
        .await
        .map_err(|e| problem(chain(&e), "Correct the entry and try again".into()))?;
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    // Retries belong to one place, `answer`, which knows which calls may be repeated.
    config.default_retry = false;
    let url = config.cluster_url.to_string();
    let client = Client::try_from(config)
        .map_err(|e| problem(chain(&e), "Correct the user or cluster entry".into()))?;
    Ok(Opened { client, url })
}

fn load(site: Site, wanted: &SiteRef, base: &Path) -> Result<(String, Kubeconfig), Error> {
    let (file, read) = if let Some(path) = &wanted.kubeconfig {
        let path: PathBuf = base.join(path);
        (path.display().to_string(), Kubeconfig::read_from(&path))
    } else {
        let file = std::env::var("KUBECONFIG")
            .ok()
            .filter(|v| !v.is_empty())
            .map_or_else(
                || "~/.kube/config".to_owned(),
                |v| format!("$KUBECONFIG ({v})"),
            );
        (file, Kubeconfig::read())
    };
    match read {
        Ok(kubeconfig) => Ok((file, kubeconfig)),
        Err(e) => Err(Error::Kubeconfig {
            site,
            file,
            why: chain(&e),
            hint: format!("Set sites.{site}.kubeconfig in the plan, or $KUBECONFIG"),
        }),
    }
}

fn one_of(names: &[String]) -> String {
    match names {
        [] => "a context once the file has one (it has none)".into(),
        [only] => format!("{only:?}"),
        many => format!(
            "one of {}",
            many.iter()
                .map(|n| format!("{n:?}"))
                .collect::<Vec<_>>()
                .join(", ")
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: &str = r#"
apiVersion: v1
kind: Config
clusters:
- {name: c, cluster: {server: "http://127.0.0.1:1"}}
contexts:
- {name: east, context: {cluster: c, user: u}}
- {name: west, context: {cluster: c, user: u}}
users:
- {name: u, user: {token: not-a-secret}}
"#;

    async fn failure(text: &str, context: Option<&str>) -> String {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join("kc"), text).expect("written");
        let wanted = SiteRef {
            kubeconfig: Some("kc".into()),
            context: context.map(Into::into),
        };
        match open(Site::Secondary, &wanted, dir.path()).await {
            Ok(_) => panic!("opened"),
            Err(e) => e.to_string(),
        }
    }

    #[tokio::test]
    async fn a_wrong_context_lists_the_right_ones() {
        let text = failure(TWO, Some("wset")).await;
        assert!(text.contains("no context \"wset\""), "{text}");
        assert!(
            text.contains("sites.secondary.context to one of \"east\", \"west\""),
            "{text}"
        );
        let text = failure(TWO, None).await;
        assert!(text.contains("no current context"), "{text}");
    }

    #[tokio::test]
    async fn a_missing_file_is_named() {
        let wanted = SiteRef {
            kubeconfig: Some("absent.yaml".into()),
            context: None,
        };
        let Err(error) = open(Site::Primary, &wanted, Path::new("/nonexistent")).await else {
            panic!("opened");
        };
        assert!(
            error.to_string().contains("/nonexistent/absent.yaml"),
            "{error}"
        );
    }

    #[tokio::test]
    async fn a_right_context_opens_without_a_call() {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join("kc"), TWO).expect("written");
        let wanted = SiteRef {
            kubeconfig: Some("kc".into()),
            context: Some("east".into()),
        };
        let opened = open(Site::Primary, &wanted, dir.path())
            .await
            .expect("opens");
        assert_eq!(opened.url, "http://127.0.0.1:1/");
    }
}
