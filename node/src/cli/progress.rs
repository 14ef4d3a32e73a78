//! Progress of long jobs: a bar on standard error where that is a terminal, nothing elsewhere.

use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressStyle};

/// A bar of bytes; without a length it only counts.
pub(super) fn bytes(length: Option<u64>) -> ProgressBar {
    let template = match length {
        Some(_) => "{bar:30} {bytes}/{total_bytes} {bytes_per_sec} {eta} {msg}",
        None => "{bytes} {bytes_per_sec} {msg}",
    };
    bar(length, template)
}

/// A bar of things, whose number is set later.
pub(super) fn count() -> ProgressBar {
    bar(Some(0), "{bar:30} {pos}/{len} {eta}")
}

fn bar(length: Option<u64>, template: &str) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = length.map_or_else(ProgressBar::no_length, ProgressBar::new);
    bar.with_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()))
}
