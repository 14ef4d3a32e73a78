//! Who holds what: `ring` for a keyspace, `locate` for a key. Both are told by one node: its routes, and whom it reaches.

use std::collections::BTreeMap;

use serde_json::json;
use shoal_client::Client;
use shoal_protocol::address::{Address, KeyspaceName};
use shoal_protocol::client::Routes;
use shoal_protocol::id::NodeId;

use super::connect::{Connect, address};
use super::failure::Failure;
use super::keyspace::name;
use super::output::Output;

/// Print which node holds how much of a keyspace.
#[derive(Debug, clap::Args)]
pub(super) struct RingArgs {
    /// The keyspace.
    #[arg(value_name = "KEYSPACE", value_parser = name)]
    keyspace: KeyspaceName,
}

/// Print which nodes hold a key.
#[derive(Debug, clap::Args)]
pub(super) struct LocateArgs {
    /// KEYSPACE/COLLECTION/KEY or KEYSPACE/KEY
    #[arg(value_parser = address)]
    address: Address,
}

pub(super) async fn ring(args: RingArgs, connect: &Connect, out: &mut Output) -> Result<(), Failure> {
    let client = connect.open().await?;
    let keyspace = client.keyspace(args.keyspace.as_str()).await?;
    let class = keyspace.info().spec.class;
    let routes = client.routes(class).await?;
    let alive = liveness(&client).await?;
    let shares = shares(&routes, class.n.into());
    let rows = routes.nodes.iter().zip(&shares);
    if out.is_json() {
        let nodes: Vec<_> = rows
            .map(|(node, share)| {
                json!({
                    "name": node.name, "node": node.node.to_string(), "zone": node.zone, "weight": node.weight,
                    "addresses": node.addresses, "alive": alive.get(&node.node), "partitions": share.held, "first_of": share.first,
                })
            })
            .collect();
        let document = json!({
            "keyspace": args.keyspace.as_str(), "partitions": routes.preference.len(), "replicas": class.n,
            "view": routes.view.to_string(), "nodes": nodes,
        });
        return out.document(&document);
    }
    let head = ["NODE", "ZONE", "WEIGHT", "ADDRESS", "STATE", "PARTITIONS", "FIRST OF"].map(str::to_owned).to_vec();
    let rows = rows.map(|(node, share)| {
        vec![
            node.name.clone(),
            node.zone.clone(),
            node.weight.to_string(),
            node.addresses.join(","),
            state(&alive, node.node).to_owned(),
            format!("{} ({}%)", share.held, percent(share.held, routes.preference.len())),
            share.first.to_string(),
        ]
    });
    out.table(&std::iter::once(head).chain(rows).collect::<Vec<_>>())
}

pub(super) async fn locate(args: LocateArgs, connect: &Connect, out: &mut Output) -> Result<(), Failure> {
    let client = connect.open().await?;
    let keyspace = client.keyspace(args.address.keyspace.as_str()).await?;
    let info = keyspace.info();
    // Checks that the address fits the keyspace's layout.
    client.key(&args.address).await?;
    let class = info.spec.class;
    let routes = client.routes(class).await?;
    let alive = liveness(&client).await?;
    let partition = args.address.place(info.id).partition(class).index;
    let preference = routes.preference.get(usize::from(partition)).map_or(&[][..], Vec::as_slice);
    let nodes: Vec<_> = preference.iter().filter_map(|index| routes.nodes.get(usize::from(*index))).collect();
    let role = |at: usize| if at < usize::from(class.n) { "primary" } else { "fallback" };
    if out.is_json() {
        let list = nodes.iter().enumerate().map(|(at, node)| {
            json!({
                "name": node.name, "node": node.node.to_string(), "zone": node.zone, "addresses": node.addresses,
                "alive": alive.get(&node.node), "role": role(at),
            })
        });
        let document = json!({
            "address": args.address.to_string(), "partition": partition, "preference": list.collect::<Vec<_>>(),
        });
        return out.document(&document);
    }
    out.line(format_args!("{} is in partition {partition}", args.address))?;
    let head = ["NODE", "ROLE", "ZONE", "ADDRESS", "STATE"].map(str::to_owned).to_vec();
    let rows = nodes.iter().enumerate().map(|(at, node)| {
        vec![
            node.name.clone(),
            role(at).to_owned(),
            node.zone.clone(),
            node.addresses.join(","),
            state(&alive, node.node).to_owned(),
        ]
    });
    out.table(&std::iter::once(head).chain(rows).collect::<Vec<_>>())
}

/// What a node has of the partitions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Share {
    /// Partitions it is a primary of.
    held: usize,
    /// Partitions it is the first of the preference list of.
    first: usize,
}

fn shares(routes: &Routes, replicas: usize) -> Vec<Share> {
    let mut shares = vec![Share::default(); routes.nodes.len()];
    for preference in &routes.preference {
        for (at, index) in preference.iter().take(replicas).enumerate() {
            if let Some(share) = shares.get_mut(usize::from(*index)) {
                share.held += 1;
                share.first += usize::from(at == 0);
            }
        }
    }
    shares
}

/// Which nodes the answering node reaches.
async fn liveness(client: &Client) -> Result<BTreeMap<NodeId, bool>, Failure> {
    let status = client.status().await?;
    let itself = status.node;
    let of = |node, alive| (node, alive || node == itself);
    Ok(status.members.iter().map(|member| of(member.endpoint.node, member.is_reachable())).collect())
}

fn state(alive: &BTreeMap<NodeId, bool>, node: NodeId) -> &'static str {
    match alive.get(&node) {
        Some(true) => "alive",
        Some(false) => "down",
        None => "unknown",
    }
}

fn percent(part: usize, whole: usize) -> usize {
    (part * 100).checked_div(whole).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use shoal_protocol::client::NodeEndpoint;
    use shoal_protocol::id::ViewId;

    use super::*;

    #[test]
    fn a_fallback_holds_nothing() {
        let node = |n| NodeEndpoint {
            node: NodeId(n),
            name: String::new(),
            zone: String::new(),
            weight: 100,
            addresses: vec![],
        };
        let routes = Routes {
            view: ViewId(1),
            nodes: vec![node(1), node(2), node(3)],
            preference: vec![vec![0, 1, 2], vec![2, 0, 1]],
        };
        let held: Vec<_> = shares(&routes, 2).iter().map(|share| (share.held, share.first)).collect();
        assert_eq!(held, [(2, 1), (1, 0), (1, 1)]);
    }
}
