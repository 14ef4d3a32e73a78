//! What `shoal dev` says once its cluster serves.

use serde_json::json;

use super::super::connect::{DEV_DIR_DEFAULT, DevInfo};
use super::super::failure::Failure;
use super::super::output::Output;
use super::Directory;

/// Prints addresses, and commands to paste.
pub(super) fn print(directory: &Directory, info: &DevInfo, out: &mut Output) -> Result<(), Failure> {
    if out.is_json() {
        let nodes = info.nodes.iter().map(|node| {
            json!({
                "name": node.name, "address": node.address, "pid": node.pid,
                "data_dir": directory.data(&node.name), "log": directory.log(&node.name),
            })
        });
        let nodes: Vec<_> = nodes.collect();
        out.document(&json!({ "url": info.url, "data_dir": directory.path(), "nodes": nodes }))?;
    } else {
        text(directory, info, out)?;
    }
    out.flush()
}

fn text(directory: &Directory, info: &DevInfo, out: &mut Output) -> Result<(), Failure> {
    let shoal = std::env::args().next().unwrap_or_else(|| "shoal".to_owned());
    let nodes_count = info.nodes.len();
    out.line(format_args!("{nodes_count} nodes serve; data and logs are in {}", directory.path().display()))?;
    for node in &info.nodes {
        out.line(format_args!("  {}  {}  pid {}", node.name, node.address, node.pid))?;
    }
    out.line("\nClients connect to")?;
    out.line(format_args!("  {}", info.url))?;
    out.line("\nTry, in another terminal:")?;
    let here = std::env::current_dir().is_ok_and(|here| here.join(DEV_DIR_DEFAULT) == directory.path());
    if here {
        out.line("  # in this directory; elsewhere: export SHOAL_URL with the URL above")?;
    } else {
        out.line(format_args!("  export SHOAL_URL='{}'", info.url))?;
    }
    for command in [
        r#"put app/users/ada '{"name":"Ada"}'"#,
        "get app/users/ada",
        "set add app/lists/ada milk bread",
        "counter add app/stats/visits 5",
        "scan app/users",
        "status",
    ] {
        out.line(format_args!("  {shoal} {command}"))?;
    }
    out.line("\nFrom Rust:")?;
    out.line(format_args!("  let client = shoal_client::Client::connect(\"{}\").await?;", info.url))?;
    out.line("  let users = client.keyspace(\"app\").await?.collection(\"users\")?;")?;
    out.line("  let ada: Option<serde_json::Value> = users.register(\"ada\")?.read().await?.value()?;")?;
    out.line("\nctrl-C stops it; the data stays.")
}
