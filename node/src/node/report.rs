//! What a node says of itself and of the others: status and routes.

use shoal_protocol::client::{MemberStatus, NodeEndpoint, Routes, Status};
use shoal_protocol::error::RequestError;
use shoal_protocol::id::{Class, LayoutId, NodeId, PARTITIONS_COUNT, Partition};
use shoal_protocol::member::Liveness;
use shoal_protocol::time::Instant;

use super::Node;
use crate::storage::Room;

impl Node {
    /// This node's state and what it believes of the others.
    #[must_use]
    pub fn status(&self, now: Instant) -> Status {
        Status {
            node: self.config.node,
            name: self.config.name.clone(),
            cluster: self.config.cluster,
            version: self.config.version.clone(),
            incarnation: self.cells.home().store().leases().incarnation,
            layout: self.system.target().map(|layout| layout.id()),
            serving: self.serving(),
            members: self.members_status(),
            warnings: self.warnings(),
            figures: self.figures(now),
        }
    }

    /// What this node believes of each member, itself first.
    pub(super) fn members_status(&self) -> Vec<MemberStatus> {
        let layout = self.system.target();
        let lists = |node: NodeId| layout.is_some_and(|layout| layout.lists(node));
        let others = self.gossip.members().map(|(member, liveness)| MemberStatus {
            endpoint: self.endpoint(member.node),
            liveness,
            linked: self.linked.contains(&member.node),
            version: member.version.clone(),
            incarnation: member.incarnation(),
            in_layout: lists(member.node),
            catching_up: self.replaced.contains_key(&member.node),
        });
        let me = MemberStatus {
            endpoint: self.endpoint(self.config.node),
            liveness: Liveness::Alive,
            linked: self.cells.any_serves(),
            version: self.config.version.clone(),
            incarnation: Some(self.cells.home().store().leases().incarnation),
            in_layout: lists(self.config.node),
            catching_up: lists(self.config.node) && !self.is_synced(),
        };
        std::iter::once(me).chain(others).collect()
    }

    /// The layout that founded the cluster.
    #[must_use]
    pub fn founding(&self) -> Option<LayoutId> {
        self.system.state().formed().map(|layout| layout.id())
    }

    fn figures(&self, now: Instant) -> Vec<(String, u64)> {
        let allocations = self.config.allocations.map(|read| ("allocations".to_owned(), read()));
        let mut figures = vec![
            ("requests_in_flight".into(), self.coordinator.in_flight() as u64),
            ("replica_requests_waiting".into(), self.cells.waiting_count() as u64),
            ("keyspaces".into(), self.system.keyspaces().len() as u64),
            ("stores".into(), u64::from(self.cells.count())),
            ("layouts".into(), self.system.layouts().len() as u64),
            ("gossip_health".into(), u64::from(self.gossip.health())),
            ("gossip_malformed".into(), self.gossip.dropped().malformed + self.gossip.dropped().foreign_version),
            ("gossip_over_limits".into(), self.gossip.dropped().members + self.gossip.dropped().relays),
            ("storage_pressure_percent".into(), (self.cells.pressure() * 100.0) as u64),
        ];
        let (written, log_bytes) = self.cells.written();
        let bytes = [
            ("storage_log_bytes_written", log_bytes),
            ("storage_rows_bytes_written", written.rows_bytes),
            ("storage_digests_bytes_written", written.digests_bytes),
            ("storage_feed_bytes_written", written.feed_bytes),
        ];
        figures.extend(bytes.map(|(name, bytes)| (name.to_owned(), bytes)));
        figures.extend(self.repair_figures());
        figures.extend(allocations);
        figures.extend(self.handoff_figures(now).map(|(name, figure)| (name.to_owned(), figure)));
        figures
    }

    fn handoff_figures(&self, now: Instant) -> [(&'static str, u64); 8] {
        let figures = self.handoff.figures(now);
        [
            ("hints_pending", figures.hints_pending),
            ("hints_bytes", figures.hints_bytes),
            ("hints_oldest_s", figures.hints_oldest_s),
            ("hints_refused", figures.hints_refused),
            ("debts", figures.debts),
            ("debts_lost", figures.debts_lost),
            ("handoff_keys", figures.keys),
            ("handoff_bytes", figures.bytes),
        ]
    }

    /// Who holds which partition of a class.
    pub(super) fn routes(&self, class: Class) -> Result<Routes, RequestError> {
        let ring = self.rings.as_ref().ok_or_else(|| self.not_serving())?.target();
        let nodes = ring.layout().members();
        let index = |node: &NodeId| nodes.binary_search(node).ok().and_then(|at| u16::try_from(at).ok());
        let list = |index_of: u16| {
            let preference = ring.preference(Partition { class, index: index_of });
            preference.primaries.iter().filter_map(index).collect()
        };
        Ok(Routes {
            view: self.system.view(),
            preference: (0..PARTITIONS_COUNT).map(list).collect(),
            nodes: nodes.iter().map(|&node| self.endpoint(node)).collect(),
        })
    }

    fn serving(&self) -> Result<(), String> {
        let failed = self.cells.failed();
        if !failed.is_empty() {
            let count = self.cells.count();
            return Err(format!("storage failed and is being reopened ({} of {count} stores)", failed.len()));
        }
        if self.rings.is_none() {
            return Err(self.standing());
        }
        if !self.leases.is_proven() {
            return Err("a majority of the members must confirm that they have seen no later state of its data".into());
        }
        Ok(())
    }

    /// What forming the cluster waits for.
    pub(super) fn standing(&self) -> String {
        let failed = self.failed_seeds.iter().map(|(seed, reason)| format!("; seed {seed}: {reason}"));
        std::iter::once(self.system.standing().to_string()).chain(failed).collect()
    }

    /// What is near a limit, and what this version does not bound (DESIGN §1).
    fn warnings(&self) -> Vec<String> {
        let mut warnings = vec!["unbounded: tombstones and retired actors are kept for ever in this version".into()];
        if self.cells.pressure() > 0.0 {
            warnings.push("memtables are more than half full: writers are slowed".into());
        }
        match self.cells.room() {
            Room::Enough => {}
            Room::Low => warnings.push("the disk is nearly full: writes are refused, reads and deletes go on".into()),
            Room::None => warnings.push("the disk is full: the ballast was given up; make room".into()),
        }
        if self.handoff.is_half_full() {
            warnings.push(
                "hints take more than half of what they may: when they are full, sloppy writes are refused".into(),
            );
        }
        if self.transition.is_lossy {
            warnings.push(
                "this node lost its data, and writes of keyspaces with w = 1 that only it had acknowledged are gone"
                    .into(),
            );
        }
        if self.has_double {
            warnings.push(
                "another process runs under this node's id: stop one, and give each a data directory of its own".into(),
            );
        }
        warnings.extend(self.failed_seeds.iter().map(|(seed, reason)| format!("seed {seed}: {reason}")));
        warnings
    }

    /// How to reach a node, as far as this one knows.
    fn endpoint(&self, node: NodeId) -> NodeEndpoint {
        let listed = self.system.target().and_then(|layout| layout.intent().nodes.get(&node)).map(|role| role.weight);
        if node == self.config.node {
            return NodeEndpoint {
                node,
                name: self.config.name.clone(),
                zone: self.config.zone.clone(),
                weight: listed.unwrap_or(self.config.weight),
                addresses: self.config.advertise_client.clone(),
            };
        }
        match self.gossip.member(node) {
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
