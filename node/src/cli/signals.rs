//! The order to stop: ctrl-C, or a signal from whoever runs us.

use std::io;

/// Waits for the first of them.
#[cfg(unix)]
pub(super) async fn stop_ordered() -> io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
    let mut signals = kinds.into_iter().map(signal).collect::<io::Result<Vec<_>>>()?;
    let any = signals.iter_mut().map(|signal| Box::pin(signal.recv()));
    futures_util::future::select_all(any).await;
    Ok(())
}

/// Waits for ctrl-C.
#[cfg(not(unix))]
pub(super) async fn stop_ordered() -> io::Result<()> {
    tokio::signal::ctrl_c().await
}
