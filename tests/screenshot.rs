//! The HTML report as a browser shows it. Runs wherever Chromium is; CI installs it.

use std::path::Path;
use std::process::Command;

use virtproof::report::{html, sample};

const BROWSERS: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];

fn browser() -> Option<&'static str> {
    BROWSERS
        .into_iter()
        .find(|name| Command::new(name).arg("--version").output().is_ok())
}

fn chromium(name: &str, profile: &Path) -> Command {
    let mut command = Command::new(name);
    command
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
        ])
        .args([
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
        ])
        .args(["--hide-scrollbars", "--window-size=1120,1500"])
        .arg(format!("--user-data-dir={}", profile.display()));
    command
}

#[test]
fn the_report_shows_its_pictures_in_a_browser() {
    let Some(name) = browser() else {
        assert!(
            std::env::var_os("VIRTPROOF_CI").is_none(),
            "CI must have Chromium"
        );
        eprintln!("SKIPPED: no Chromium here, the report was not looked at");
        return;
    };
    let dir = tempfile::tempdir().expect("folder");
    let page = dir.path().join("report.html");
    std::fs::write(&page, html::render(&sample::view()).expect("HTML")).expect("page");
    let url = format!("file://{}", page.display());

    let shot = dir.path().join("shot.png");
    let taken = chromium(name, &dir.path().join("a"))
        .arg(format!("--screenshot={}", shot.display()))
        .arg(&url)
        .output()
        .expect("Chromium runs");
    assert!(
        taken.status.success(),
        "{}",
        String::from_utf8_lossy(&taken.stderr)
    );
    let png = std::fs::read(&shot).expect("a screenshot");
    assert_eq!(&png[1..4], b"PNG");
    let size = |at: usize| u32::from_be_bytes(png[at..at + 4].try_into().expect("four bytes"));
    assert_eq!((size(16), size(20)), (1120, 1500));
    // A blank page of this size compresses to about 8 KB.
    assert!(
        png.len() > 30_000,
        "the page looks blank: {} bytes",
        png.len()
    );

    let dom = chromium(name, &dir.path().join("b"))
        .args(["--dump-dom", &url])
        .output()
        .expect("Chromium runs");
    let dom = String::from_utf8_lossy(&dom.stdout);
    for part in [
        "quarterly &lt;dr&gt;",
        "class=\"area primary\"",
        "without an ack",
        "promoted",
    ] {
        assert!(dom.contains(part), "the browser does not show {part}");
    }
}
