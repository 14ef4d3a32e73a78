//! The order to stop: ctrl-C, or a signal from whoever runs us.

use std::io;

/// Waits for the first of them.
#[cfg(unix)]
pub(super) async fn stop_ordered() -> io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        _ = hang_up.recv() => {}
    }
    Ok(())
}

/// Waits for ctrl-C.
#[cfg(not(unix))]
pub(super) async fn stop_ordered() -> io::Result<()> {
    tokio::signal::ctrl_c().await
}
