//! What one node says: `status`, `healthcheck`, `connect-info`.

use serde_json::{Value as Json, json};
use shoal_client::url::ClusterUrl;
use shoal_protocol::client::Status;

use super::config::{Source, url_of};
use super::connect::Connect;
use super::failure::{Failure, NOT_SERVING};
use super::members;
use super::output::Output;

pub(super) async fn status(connect: &Connect, out: &mut Output) -> Result<(), Failure> {
    let status = connect.open().await?.status().await?;
    if out.is_json() {
        return out.document(&document(&status));
    }
    out.line(format_args!("node      {} {}, version {}", status.name, status.node, status.version))?;
    out.line(format_args!("cluster   {}", status.cluster))?;
    match &status.serving {
        Ok(()) => out.line("serving   yes")?,
        Err(reason) => out.line(format_args!("serving   no: {reason}"))?,
    }
    out.line(format_args!("layout    {}", or_dash(status.layout)))?;
    out.line("")?;
    out.table(&members::table(status.node, &status.members))?;
    if !status.warnings.is_empty() {
        out.line("")?;
        status.warnings.iter().try_for_each(|warning| out.line(format_args!("warning   {warning}")))?;
    }
    out.line("")?;
    let figures = status.figures.iter().map(|(name, value)| vec![name.clone(), value.to_string()]);
    out.table(&figures.collect::<Vec<_>>())
}

pub(super) async fn healthcheck(source: Source, connect: &Connect, out: &mut Output) -> Result<(), Failure> {
    let status = connect.open_at(&url(source, connect)?).await?.status().await?;
    match &status.serving {
        Ok(()) if out.is_json() => out.document(&json!({ "serving": true, "node": status.name })),
        Ok(()) => out.line(format_args!("{} serves", status.name)),
        Err(reason) => Err(Failure::new(NOT_SERVING, format!("{} does not serve: {reason}", status.name))),
    }
}

/// The URL of all nodes, as a node knows them; without a running cluster, of the node that is configured.
pub(super) async fn connect_info(source: Source, connect: &Connect, out: &mut Output) -> Result<(), Failure> {
    let url = if !source.names_a_file() && connect.names_a_cluster() {
        let known = connect.url()?;
        let status = connect.open_at(&known).await?.status().await?;
        let members = status.members.into_iter().filter(|member| member.in_layout);
        let addresses: Vec<String> =
            members.filter_map(|member| member.endpoint.addresses.into_iter().next()).collect();
        if addresses.is_empty() { known } else { ClusterUrl { addresses, ca: known.ca } }
    } else {
        configured(source)?
    };
    if out.is_json() {
        out.document(&json!({ "url": url.to_string(), "addresses": url.addresses, "ca": url.ca.to_string() }))
    } else {
        out.line(url)
    }
}

/// Of the configured node if a file names one, else of the cluster named, else of the node configured by the environment:
/// so a container checks itself with the settings it was started with.
fn url(source: Source, connect: &Connect) -> Result<ClusterUrl, Failure> {
    if !source.names_a_file() && connect.names_a_cluster() {
        return connect.url();
    }
    configured(source)
}

fn configured(source: Source) -> Result<ClusterUrl, Failure> {
    let config = source.resolve();
    url_of(
        &config.map_err(|failure| failure.hint("name a cluster with --url or SHOAL_URL, or a server with --config"))?,
    )
}

fn document(status: &Status) -> Json {
    let figures = status.figures.iter().map(|(name, value)| (name.clone(), json!(value)));
    json!({
        "node": status.node.to_string(), "name": status.name, "cluster": status.cluster.to_string(),
        "version": status.version, "incarnation": status.incarnation.to_string(),
        "layout": status.layout.map(|layout| layout.to_string()),
        "serving": status.serving.is_ok(), "not_serving_because": status.serving.as_ref().err(),
        "members": members::document(&status.members),
        "warnings": status.warnings,
        "figures": figures.collect::<serde_json::Map<_, _>>(),
    })
}

pub(super) fn or_dash(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}
