//! What passes between nodes that compare themselves, for mutants that compare wrongly.

use std::collections::BTreeMap;

use shoal_protocol::id::{PARTITIONS_COUNT, Partition, RequestId};
use shoal_protocol::peer::{PeerRequest, PeerResponse};
use shoal_protocol::repair::{RepairAnswer, RepairAsk};

use crate::sim::mutant::Mutant;

/// Roots as they were told.
#[derive(Debug, Default)]
pub(super) struct Compared {
    /// Partitions asked about: of whom, on which link, in which question.
    asked: BTreeMap<(usize, u64, RequestId), Vec<Partition>>,
    /// The last root that each node told of a partition.
    told: BTreeMap<(usize, Partition), u64>,
}

impl Compared {
    /// A question arrives; of a mutant it is another.
    pub(super) fn asked(&mut self, from: (usize, u64, RequestId), mutant: Option<Mutant>, request: &mut PeerRequest) {
        match (mutant, request) {
            (Some(Mutant::SkipLevel), PeerRequest::Repair(RepairAsk::Nodes { level, .. })) => *level += 1,
            (Some(Mutant::TruncatedRanges), PeerRequest::Repair(RepairAsk::Roots { partitions, .. })) => {
                self.asked.insert(from, partitions.clone());
            }
            _ => {}
        }
    }

    /// A node answers a caller; of a mutant the answer is another: the caller's own roots, behind half of the partitions.
    pub(super) fn answered(
        &mut self,
        (caller, node): (usize, usize),
        (link, request): (u64, RequestId),
        mutant: Option<Mutant>,
        response: PeerResponse,
    ) -> PeerResponse {
        let (Some(Mutant::TruncatedRanges), PeerResponse::Repair(RepairAnswer::Roots(roots))) = (mutant, &response)
        else {
            return response;
        };
        let Some(partitions) = self.asked.remove(&(node, link, request)) else { return response };
        let mut answer = Vec::new();
        for (partition, root) in partitions.into_iter().zip(roots) {
            if let Some(root) = root {
                self.told.insert((node, partition), *root);
            }
            let is_left_out = partition.index >= PARTITIONS_COUNT / 2;
            let own = self.told.get(&(caller, partition)).copied().filter(|_| is_left_out);
            answer.push(own.or(*root));
        }
        PeerResponse::Repair(RepairAnswer::Roots(answer))
    }
}
