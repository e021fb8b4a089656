//! Ctrl-C and SIGTERM: the first asks the run to stop and clean up, the second ends it at once.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::output::note;

/// A token that fires at the first signal. At the second the process aborts what it does: the undo
/// log stays, and `virtproof cleanup` can use it.
pub(super) fn cancel_on_signal(hint: String) -> std::io::Result<CancellationToken> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let token = CancellationToken::new();
    let fires = token.clone();
    tokio::spawn(async move {
        let mut next = async || {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        };
        next().await;
        fires.cancel();
        note("stopping and cleaning up; once more to leave things as they are").ok();
        next().await;
        note(format_args!("left as it is; {hint}")).ok();
        leave();
    });
    Ok(token)
}

#[expect(
    clippy::exit,
    clippy::disallowed_methods,
    reason = "the user asked twice to stop at once"
)]
fn leave() -> ! {
    std::process::exit(i32::from(super::exit::Exit::Interrupted as u8))
}
