//! `shoal cluster`: who is to hold data, and how far it is with that.
//!
//! A change is done when a majority of the nodes stored it; the data moves afterwards, while everything is served. `--wait`
//! waits for that, with a bar on a terminal. Source: DESIGN §5, §12.

use std::time::Duration;

use serde_json::{Value as Json, json};
use shoal_client::Client;
use shoal_protocol::cluster::{LayoutChange, LayoutNode, Layouts, RoleChange};
use shoal_protocol::id::NodeId;
use shoal_protocol::layout::{NodeRole, NodeState};

use super::connect::Connect;
use super::failure::{Failure, NOT_FOUND};
use super::output::Output;
use super::progress;

/// Say which nodes hold data.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Print the layouts, every node's share, and what a transition waits for.
    Status,
    /// Make a node a member that holds its share, or one again that was to leave.
    Join(Change),
    /// Change a member's weight or zone.
    Set(Change),
    /// Let a node give away all it holds. It can be stopped when that is done.
    Leave(Leave),
    /// Give the place of a node that will not return to others.
    Remove(Remove),
    /// Print what a commit of what is staged would change.
    Plan,
    /// Publish what is staged.
    Commit(Wait),
}

#[derive(Debug, clap::Args)]
pub(super) struct Change {
    /// Its name or id.
    node: String,
    /// Its share of the data relative to the others'.
    #[arg(long)]
    weight: Option<u32>,
    /// What fails together.
    #[arg(long)]
    zone: Option<String>,
    /// Only note it, for `shoal cluster plan` and `commit`.
    #[arg(long, conflicts_with = "wait")]
    stage: bool,
    #[command(flatten)]
    wait: Wait,
}

#[derive(Debug, clap::Args)]
pub(super) struct Leave {
    /// Its name or id.
    node: String,
    /// Only note it, for `shoal cluster plan` and `commit`.
    #[arg(long, conflicts_with = "wait")]
    stage: bool,
    #[command(flatten)]
    wait: Wait,
}

#[derive(Debug, clap::Args)]
pub(super) struct Remove {
    /// Its name or id.
    node: String,
    /// Do it even if too few of the other replicas can be reached to be sure that nothing acknowledged is lost.
    #[arg(long)]
    accept_data_loss: bool,
    #[command(flatten)]
    wait: Wait,
}

#[derive(Debug, clap::Args)]
pub(super) struct Wait {
    /// Wait until the data is where it is to be.
    #[arg(long)]
    wait: bool,
}

pub(super) async fn run(command: Command, connect: &Connect, out: &mut Output) -> Result<(), Failure> {
    let client = connect.open().await?;
    let (change, waits) = match command {
        Command::Status => return print(&client.layouts().await?, out),
        Command::Plan => return plan(&client.layouts().await?, out),
        Command::Join(args) => (set(&client, &args, Some(false)).await?, args.wait.wait),
        Command::Set(args) => (set(&client, &args, None).await?, args.wait.wait),
        Command::Leave(args) => {
            let role = RoleChange { leaving: Some(true), ..RoleChange::default() };
            let node = find(&client, &args.node).await?;
            (LayoutChange::Set { node, role, staged: args.stage }, args.wait.wait)
        }
        Command::Remove(args) => {
            let node = find(&client, &args.node).await?;
            (LayoutChange::Remove { node, accept_data_loss: args.accept_data_loss }, args.wait.wait)
        }
        Command::Commit(args) => (LayoutChange::Commit, args.wait),
    };
    let mut layouts = client.change_layout(change).await?;
    if waits {
        layouts = settled(&client).await?;
    }
    print(&layouts, out)
}

async fn set(client: &Client, args: &Change, leaving: Option<bool>) -> Result<LayoutChange, Failure> {
    let role = RoleChange { zone: args.zone.clone(), weight: args.weight, leaving };
    Ok(LayoutChange::Set { node: find(client, &args.node).await?, role, staged: args.stage })
}

/// The node of this name or id, as a node of the cluster knows it.
async fn find(client: &Client, wanted: &str) -> Result<NodeId, Failure> {
    let (status, layouts) = (client.status().await?, client.layouts().await?);
    let members = status.members.into_iter().map(|member| (member.endpoint.node, member.endpoint.name));
    let listed = layouts.nodes.into_iter().map(|node| (node.node, node.name));
    let mut known = members.chain(listed);
    let found = known.find(|(node, name)| name == wanted || node.to_string() == wanted);
    found.map(|(node, _)| node).ok_or_else(|| Failure::new(NOT_FOUND, format!("no node `{wanted}` is known")))
}

/// The layouts once there is only one.
async fn settled(client: &Client) -> Result<Layouts, Failure> {
    let bar = progress::count();
    loop {
        let layouts = client.layouts().await?;
        if layouts.active.len() <= 1 {
            bar.finish_and_clear();
            return Ok(layouts);
        }
        let members = layouts.nodes.iter().filter(|node| node.partitions.1 > 0).count() as u64;
        let waiting = layouts.waits.iter().map(|wait| wait.unsynced.len()).max().unwrap_or(0) as u64;
        bar.set_length(members);
        bar.set_position(members.saturating_sub(waiting));
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

fn print(layouts: &Layouts, out: &mut Output) -> Result<(), Failure> {
    if out.is_json() {
        return out.document(&document(layouts));
    }
    match layouts.active.split_first() {
        None => out.line("layout    none: the cluster is not formed")?,
        Some((target, older)) => {
            out.line(format_args!("layout    {target}"))?;
            older.iter().try_for_each(|older| out.line(format_args!("older     {older}, on its way out")))?;
        }
    }
    let (pulls, all) = layouts.pulls;
    if pulls > 0 {
        out.line(format_args!("pulling   {pulls} of {all} partitions are still to come to the node that answers"))?;
    }
    for wait in &layouts.waits {
        let names = |nodes: &[NodeId]| nodes.iter().map(|node| name(layouts, *node)).collect::<Vec<_>>().join(", ");
        if !wait.unfenced.is_empty() {
            out.line(format_args!("waiting   {} to learn of the layout", names(&wait.unfenced)))?;
        }
        if !wait.unsynced.is_empty() {
            out.line(format_args!("waiting   {} to hold all they are to hold", names(&wait.unsynced)))?;
        }
    }
    out.line("")?;
    out.table(&table(layouts))?;
    if layouts.nodes.iter().any(|node| node.staged.is_some()) {
        out.line("")?;
        out.line("Something is staged: see `shoal cluster plan`, then `shoal cluster commit`.")?;
    }
    Ok(())
}

fn plan(layouts: &Layouts, out: &mut Output) -> Result<(), Failure> {
    if out.is_json() {
        return out.document(&document(layouts));
    }
    if layouts.nodes.iter().all(|node| node.staged.is_none()) {
        return out.line("nothing is staged");
    }
    out.table(&table(layouts))?;
    out.line("")?;
    for moves in &layouts.moves {
        let (class, partitions) = (moves.class, moves.partitions);
        out.line(format_args!("n={} r={} w={}: {partitions} copies of partitions move", class.n, class.r, class.w))?;
    }
    Ok(())
}

fn table(layouts: &Layouts) -> Vec<Vec<String>> {
    let head = ["NAME", "NODE", "ZONE", "WEIGHT", "STATE", "PARTITIONS", "STAGED"];
    let row = |node: &LayoutNode| {
        let (before, after) = node.partitions;
        let role = |what: fn(&NodeRole) -> String| node.role.as_ref().map_or_else(|| "-".to_owned(), what);
        let unusable = if node.unusable > 0 { format!(" ({} unusable)", node.unusable) } else { String::new() };
        vec![
            node.name.clone(),
            node.node.to_string(),
            role(|role| role.zone.clone()),
            role(|role| role.weight.to_string()),
            role(|role| word(role.state).to_owned()),
            if before == after { format!("{after}{unusable}") } else { format!("{before} -> {after}{unusable}") },
            node.staged.as_ref().map_or_else(|| "-".to_owned(), staged),
        ]
    };
    std::iter::once(head.map(str::to_owned).to_vec()).chain(layouts.nodes.iter().map(row)).collect()
}

fn staged(role: &NodeRole) -> String {
    format!("{}, zone {}, weight {}", word(role.state), role.zone, role.weight)
}

fn name(layouts: &Layouts, node: NodeId) -> String {
    let known = layouts.nodes.iter().find(|known| known.node == node && !known.name.is_empty());
    known.map_or_else(|| node.to_string(), |known| known.name.clone())
}

fn document(layouts: &Layouts) -> Json {
    let role = |role: &NodeRole| json!({ "zone": role.zone, "weight": role.weight, "state": word(role.state) });
    let node = |node: &LayoutNode| {
        json!({
            "name": node.name, "node": node.node.to_string(), "role": node.role.as_ref().map(role),
            "staged": node.staged.as_ref().map(role), "partitions_before": node.partitions.0,
            "partitions_after": node.partitions.1, "unusable": node.unusable,
        })
    };
    let texts = |nodes: &[NodeId]| nodes.iter().map(ToString::to_string).collect::<Vec<_>>();
    let wait = |wait: &shoal_protocol::cluster::LayoutWait| {
        json!({
            "layout": wait.layout.to_string(), "unfenced": texts(&wait.unfenced), "unsynced": texts(&wait.unsynced),
        })
    };
    json!({
        "active": layouts.active.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "nodes": layouts.nodes.iter().map(node).collect::<Vec<_>>(),
        "moves": layouts.moves.iter().map(|moves| json!({
            "n": moves.class.n, "r": moves.class.r, "w": moves.class.w, "partitions": moves.partitions,
        })).collect::<Vec<_>>(),
        "waits": layouts.waits.iter().map(wait).collect::<Vec<_>>(),
        "pulls": layouts.pulls.0, "pulls_all": layouts.pulls.1,
    })
}

const fn word(state: NodeState) -> &'static str {
    match state {
        NodeState::Active => "active",
        NodeState::Leaving => "leaving",
    }
}

/// How often it is looked whether a transition is over.
const LOOK_AGAIN: Duration = Duration::from_millis(250);
