//! `crds.jsonl`: how the published CustomResourceDefinitions judge objects, without webhooks.

use virtproof::lab::api::registry::Registry;
use virtproof::lab::api::{ApiServer, SiteConfig, Store};
use virtproof::lab::clock::LabClock;

use crate::harness::{Client, Report, lines};
use crate::names::Names;

/// Lines that differ, and why that is right or harmless.
const REASONS: &[(&str, &str)] = &[];

#[tokio::test(flavor = "multi_thread")]
async fn recordings_of_crds() {
    let Some(lines) = lines("crds.jsonl") else {
        return;
    };
    let registry = Registry::full();
    let known = |path: &str| {
        let mut parts = path.split('?').next().unwrap_or("").split('/').skip(2);
        let (group, rest) = (parts.next().unwrap_or(""), parts.collect::<Vec<_>>());
        registry
            .iter()
            .any(|kind| kind.group == group && rest.contains(&kind.plural.as_str()))
    };
    let config = SiteConfig::new("rig", Store::new(1), LabClock::new(1.0));
    let server = ApiServer::start(config).await.expect("a server");
    let client = Client::new(&server);
    let mut names = Names::default();
    let mut report = Report::default();
    let (mine, others): (Vec<_>, Vec<_>) = lines.iter().partition(|line| known(line.path()));
    println!(
        "crds: {} lines are of kinds that the lab does not serve",
        others.len()
    );
    for line in mine {
        let answer = client.send(&names.translate(line.request()), None).await;
        report.note(line, &answer, &names);
        names.learn(&line.response()["body"], &answer.body);
    }
    report.judge("crds", REASONS, 98);
    server.shutdown().await;
}
