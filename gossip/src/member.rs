//! What is known of one member.

pub(crate) use shoal_protocol::member::{
    ADDRESS_BYTES_MAX, ADDRESSES_COUNT_MAX, LAYOUTS_COUNT_MAX, STORES_COUNT_MAX, TEXT_BYTES_MAX,
};
pub use shoal_protocol::member::{Liveness, Member, StoreLease};

#[cfg(test)]
pub(crate) mod tests {
    use shoal_protocol::id::{Actor, LayoutId, NodeId};

    use super::*;

    pub(crate) fn member(node: u64) -> Member {
        Member {
            node: NodeId(node),
            name: format!("n{node}"),
            zone: "z".into(),
            weight: 100,
            advertise_peer: vec![format!("n{node}:7400")],
            advertise_client: vec![format!("n{node}:7400")],
            version: "0.1.0".into(),
            stores: vec![StoreLease { incarnation: Actor(node), lease_end: 65_536 }],
            boot_nonce: 1,
            layouts: vec![LayoutId(7)],
        }
    }
}
