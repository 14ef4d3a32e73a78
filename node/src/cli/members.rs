//! Who the members are and how they are: `members`, with `--all` as each of them sees the others.
//!
//! A node's word on another is `alive`, `suspect`, `down` or `left`, by gossip; `, no link` behind it means that it has no
//! connection to ask it on. `--all` asks every node and prints a column for each, `?` where one did not answer: so a path
//! that is cut one way only can be seen.

use serde_json::{Value as Json, json};
use shoal_protocol::client::{MemberStatus, MemberView};
use shoal_protocol::id::NodeId;
use shoal_protocol::member::Liveness;

use super::connect::Connect;
use super::failure::Failure;
use super::inspect::or_dash;
use super::output::Output;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Ask every node, and print the views side by side.
    #[arg(long)]
    all: bool,
}

pub(super) async fn run(args: Args, connect: &Connect, out: &mut Output) -> Result<(), Failure> {
    let client = connect.open().await?;
    if !args.all {
        let status = client.status().await?;
        return if out.is_json() {
            out.document(&document(&status.members))
        } else {
            out.table(&table(status.node, &status.members))
        };
    }
    let mut views = client.member_views().await?;
    views.sort_by(|one, other| one.name.cmp(&other.name));
    if out.is_json() { out.document(&views_document(&views)) } else { out.table(&views_table(&views)) }
}

/// One line per member, as `viewer` sees them.
pub(super) fn table(viewer: NodeId, members: &[MemberStatus]) -> Vec<Vec<String>> {
    let head = ["NAME", "NODE", "ZONE", "WEIGHT", "ADDRESS", "STATE", "LAYOUT", "VERSION", "INCARNATION"];
    let row = |member: &MemberStatus| {
        let MemberStatus { endpoint, version, incarnation, in_layout, catching_up, .. } = member;
        let layout = match (in_layout, catching_up) {
            (true, true) => "catching up",
            (true, false) => "yes",
            (false, _) => "no",
        };
        vec![
            endpoint.name.clone(),
            endpoint.node.to_string(),
            endpoint.zone.clone(),
            endpoint.weight.to_string(),
            endpoint.addresses.join(","),
            state(viewer, member),
            layout.to_owned(),
            version.clone(),
            or_dash(*incarnation),
        ]
    };
    std::iter::once(head.map(str::to_owned).to_vec()).chain(members.iter().map(row)).collect()
}

/// What a node says of the members.
pub(super) fn document(members: &[MemberStatus]) -> Json {
    members
        .iter()
        .map(|member| {
            json!({
                "name": member.endpoint.name, "node": member.endpoint.node.to_string(), "zone": member.endpoint.zone,
                "weight": member.endpoint.weight, "addresses": member.endpoint.addresses,
                "state": word(member.liveness), "linked": member.linked, "version": member.version,
                "in_layout": member.in_layout, "catching_up": member.catching_up,
                "incarnation": member.incarnation.map(|incarnation| incarnation.to_string()),
            })
        })
        .collect()
}

/// One line per member seen, one column per node that sees.
fn views_table(views: &[MemberView]) -> Vec<Vec<String>> {
    let name = |view: &MemberView| if view.name.is_empty() { view.node.to_string() } else { view.name.clone() };
    let head = std::iter::once("MEMBER".to_owned()).chain(views.iter().map(|view| format!("SEEN BY {}", name(view))));
    let row = |seen: &MemberView| {
        let by = |viewer: &MemberView| {
            let Some(members) = &viewer.members else { return "?".to_owned() };
            let found = members.iter().find(|member| member.endpoint.node == seen.node);
            found.map_or_else(|| "unknown".to_owned(), |member| state(viewer.node, member))
        };
        std::iter::once(name(seen)).chain(views.iter().map(by)).collect()
    };
    std::iter::once(head.collect()).chain(views.iter().map(row)).collect()
}

fn views_document(views: &[MemberView]) -> Json {
    views
        .iter()
        .map(|view| {
            let members = view.members.as_deref().map(document);
            json!({ "node": view.node.to_string(), "name": view.name, "answered": members.is_some(), "members": members })
        })
        .collect()
}

fn state(viewer: NodeId, member: &MemberStatus) -> String {
    if member.endpoint.node == viewer {
        return "itself".to_owned();
    }
    let link = if member.linked || member.liveness != Liveness::Alive { "" } else { ", no link" };
    format!("{}{link}", word(member.liveness))
}

const fn word(liveness: Liveness) -> &'static str {
    match liveness {
        Liveness::Alive => "alive",
        Liveness::Suspect => "suspect",
        Liveness::Down => "down",
        Liveness::Left => "left",
    }
}
