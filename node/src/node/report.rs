//! What a node says of itself and of the others: status and routes.

use shoal_gossip::Liveness;
use shoal_protocol::client::{MemberStatus, NodeEndpoint, Routes, Status};
use shoal_protocol::error::RequestError;
use shoal_protocol::id::{Class, NodeId, PARTITIONS_COUNT, Partition};

use super::Node;
use crate::storage::Room;

impl Node {
    /// This node's state and what it believes of the others.
    #[must_use]
    pub fn status(&self) -> Status {
        let store = self.replica.store();
        let layout = self.system.formed();
        let lists = |node: NodeId| layout.is_some_and(|layout| layout.lists(node));
        let others = self.membership.members().map(|(member, liveness)| MemberStatus {
            endpoint: self.endpoint(member.node),
            alive: liveness == Liveness::Alive,
            incarnation: Some(member.incarnation),
            in_layout: lists(member.node),
            catching_up: self.replaced.contains_key(&member.node),
        });
        let me = MemberStatus {
            endpoint: self.endpoint(self.config.node),
            alive: store.is_serving(),
            incarnation: Some(store.leases().incarnation),
            in_layout: lists(self.config.node),
            catching_up: lists(self.config.node) && !self.is_synced(),
        };
        Status {
            node: self.config.node,
            name: self.config.name.clone(),
            cluster: self.config.cluster,
            version: self.config.version.clone(),
            incarnation: store.leases().incarnation,
            layout: layout.map(|layout| layout.id()),
            serving: self.serving(),
            members: std::iter::once(me).chain(others).collect(),
            warnings: self.warnings(),
            figures: self.figures(),
        }
    }

    fn figures(&self) -> Vec<(String, u64)> {
        let store = self.replica.store();
        let allocations = self.config.allocations.map(|read| ("allocations".to_owned(), read()));
        let mut figures = vec![
            ("requests_in_flight".into(), self.coordinator.in_flight() as u64),
            ("replica_requests_waiting".into(), self.replica.waiting_count() as u64),
            ("keyspaces".into(), self.system.keyspaces().len() as u64),
            ("storage_pressure_percent".into(), (store.pressure() * 100.0) as u64),
        ];
        let (written, log_bytes) = store.written();
        let bytes = [
            ("storage_log_bytes_written", log_bytes),
            ("storage_rows_bytes_written", written.rows_bytes),
            ("storage_digests_bytes_written", written.digests_bytes),
            ("storage_feed_bytes_written", written.feed_bytes),
        ];
        figures.extend(bytes.map(|(name, bytes)| (name.to_owned(), bytes)));
        figures.extend(allocations);
        figures
    }

    /// Who holds which partition of a class.
    pub(super) fn routes(&self, class: Class) -> Result<Routes, RequestError> {
        let ring = self.ring.as_ref().ok_or_else(|| self.not_serving())?;
        let nodes: Vec<NodeId> = ring.layout().intent().nodes.keys().copied().collect();
        let index = |node: &NodeId| nodes.binary_search(node).ok().and_then(|at| u16::try_from(at).ok());
        let list = |index_of: u16| {
            let preference = ring.preference(Partition { class, index: index_of });
            preference.primaries.iter().filter_map(index).collect()
        };
        Ok(Routes {
            view: self.system.view(),
            preference: (0..PARTITIONS_COUNT).map(list).collect(),
            nodes: nodes.into_iter().map(|node| self.endpoint(node)).collect(),
        })
    }

    fn serving(&self) -> Result<(), String> {
        if !self.replica.store().is_serving() {
            return Err("storage failed and is being reopened".into());
        }
        if self.ring.is_none() { Err(self.standing()) } else { Ok(()) }
    }

    /// What forming the cluster waits for.
    pub(super) fn standing(&self) -> String {
        let failed = self.failed_seeds.iter().map(|(seed, reason)| format!("; seed {seed}: {reason}"));
        std::iter::once(self.system.standing().to_string()).chain(failed).collect()
    }

    /// What is near a limit, and what this version does not bound (DESIGN §1).
    fn warnings(&self) -> Vec<String> {
        let mut warnings = vec!["unbounded: tombstones and retired actors are kept for ever in this version".into()];
        if self.replica.store().pressure() > 0.0 {
            warnings.push("memtables are more than half full: writers are slowed".into());
        }
        match self.replica.store().room() {
            Room::Enough => {}
            Room::Low => warnings.push("the disk is nearly full: writes are refused, reads and deletes go on".into()),
            Room::None => warnings.push("the disk is full: the ballast was given up; make room".into()),
        }
        warnings.extend(self.failed_seeds.iter().map(|(seed, reason)| format!("seed {seed}: {reason}")));
        warnings
    }

    /// How to reach a node, as far as this one knows.
    fn endpoint(&self, node: NodeId) -> NodeEndpoint {
        let listed = self.system.formed().and_then(|layout| layout.intent().nodes.get(&node)).map(|role| role.weight);
        if node == self.config.node {
            return NodeEndpoint {
                node,
                name: self.config.name.clone(),
                zone: self.config.zone.clone(),
                weight: listed.unwrap_or(self.config.weight),
                addresses: self.config.advertise_client.clone(),
            };
        }
        match self.membership.member(node) {
            Some(member) => NodeEndpoint {
                node,
                name: member.name.clone(),
                zone: member.zone.clone(),
                weight: listed.unwrap_or(member.weight),
                addresses: member.advertise_client.clone(),
            },
            None => NodeEndpoint {
                node,
                name: String::new(),
                zone: String::new(),
                weight: listed.unwrap_or(0),
                addresses: Vec::new(),
            },
        }
    }
}
