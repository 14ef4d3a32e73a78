//! Fair shares: how many replicas each node should hold, given weights, zones and that one node holds a partition once.
//!
//! Shape: shares grow together in proportion to the weights until a node holds every partition or a zone is full; those
//! stop there and the rest goes on. Units: slots (replicas of one partition), in fixed point with 64 fractional bits.
//! A zone holds at most `zone_cap` replicas of one partition: ceil(n / zones), more only where zones have too few nodes.
//! Source: DESIGN §5 (zone cap, 1.10 of the fair share). Invariant: shares sum to n x partitions, less rounding.

/// One node to place on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Holder {
    /// Index of its zone.
    pub(super) zone: usize,
    /// Its weight, at least 1.
    pub(super) weight: u32,
}

/// What each holder may hold.
#[derive(Clone, Debug)]
pub(super) struct Shares {
    /// Replicas of one partition in one zone.
    pub(super) zone_cap: usize,
    /// Slots per holder: ceil(1.10 x fair share), at most one per partition.
    pub(super) caps: Vec<usize>,
    /// Whole slots by which a holder's fair share stays below its weight's part of all slots.
    pub(super) unusable: Vec<u32>,
}

impl Shares {
    /// Shares of `replicas` x `partitions` slots; `replicas` is at most the number of holders.
    pub(super) fn of(holders: &[Holder], zones_count: usize, replicas: usize, partitions: usize) -> Self {
        let zone_cap = zone_cap(holders, zones_count, replicas);
        let total = fixed(replicas * partitions);
        let fair = fill(holders, &vec![fixed(zone_cap * partitions); zones_count], fixed(partitions), total);
        let weights: u128 = holders.iter().map(|h| u128::from(h.weight)).sum();
        let proportional = |h: &Holder| total / weights * u128::from(h.weight);
        Self {
            zone_cap,
            caps: fair.iter().map(|&share| cap(share).min(partitions)).collect(),
            unusable: holders
                .iter()
                .zip(&fair)
                .map(|(h, &share)| whole(proportional(h).saturating_sub(share)))
                .collect(),
        }
    }
}

fn zone_cap(holders: &[Holder], zones_count: usize, replicas: usize) -> usize {
    let mut sizes = vec![0; zones_count];
    for holder in holders {
        sizes[holder.zone] += 1;
    }
    let mut cap = replicas.div_ceil(zones_count.max(1));
    while sizes.iter().map(|&size: &usize| size.min(cap)).sum::<usize>() < replicas {
        cap += 1;
    }
    cap
}

/// Grows all shares in proportion to the weights; a full zone or node stops, the others go on.
fn fill(holders: &[Holder], zone_max: &[u128], node_max: u128, total: u128) -> Vec<u128> {
    let mut fair: Vec<Option<u128>> = vec![None; holders.len()];
    while fair.iter().any(Option::is_none) {
        let open = |zone: Option<usize>| {
            let inside = |&(_, h): &(usize, &Holder)| zone.is_none_or(|z| h.zone == z);
            let (mut taken, mut weight) = (0, 0);
            for (i, holder) in holders.iter().enumerate().filter(inside) {
                match fair[i] {
                    Some(share) => taken += share,
                    None => weight += u128::from(holder.weight),
                }
            }
            (taken, weight)
        };
        let level = |max: u128, (taken, weight): (u128, u128)| max.saturating_sub(taken) / weight;
        let overall = (level(total, open(None)), None);
        let zones = zone_max.iter().enumerate().filter(|&(z, _)| open(Some(z)).1 > 0);
        let zones = zones.map(|(z, &max)| (level(max, open(Some(z))), Some(Full::Zone(z))));
        let nodes = holders.iter().enumerate().filter(|&(i, _)| fair[i].is_none());
        let nodes = nodes.map(|(i, h)| (node_max / u128::from(h.weight), Some(Full::Node(i))));
        let (rise, full) = zones.chain(nodes).fold(overall, |least, next| if next.0 < least.0 { next } else { least });
        for (i, holder) in holders.iter().enumerate() {
            let stops = match full {
                None => true,
                Some(Full::Zone(zone)) => holder.zone == zone,
                Some(Full::Node(node)) => i == node,
            };
            if stops && fair[i].is_none() {
                fair[i] = Some((rise * u128::from(holder.weight)).min(node_max));
            }
        }
    }
    fair.into_iter().flatten().collect()
}

/// What stops growing first.
#[derive(Clone, Copy, Debug)]
enum Full {
    Zone(usize),
    Node(usize),
}

const fn fixed(slots: usize) -> u128 {
    (slots as u128) << 64
}

/// Rounded to the nearest slot when closer than rounding errors reach, else down.
const fn whole(share: u128) -> u32 {
    ((share + (1 << 32)) >> 64) as u32
}

/// ceil(1.10 x share). Shares are rounded down by far less than 2^-32 of a slot, so taking that much off first makes a
/// whole number of tenths count as exact however it was rounded.
fn cap(share: u128) -> usize {
    ((share * 11 / 10).saturating_sub(1 << 32) >> 64) as usize + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holders(nodes: &[(usize, u32)]) -> Vec<Holder> {
        nodes.iter().map(|&(zone, weight)| Holder { zone, weight }).collect()
    }

    #[test]
    fn equal_nodes_may_hold_a_tenth_more_than_their_share() {
        let shares = Shares::of(&holders(&[(0, 1), (0, 1), (0, 1), (0, 1), (0, 1)]), 1, 3, 256);
        assert_eq!(shares.caps, [169; 5]); // 153.6 x 1.1 = 168.96
        assert_eq!(shares.unusable, [0; 5]);
        assert_eq!(shares.zone_cap, 3);
        let exact = Shares::of(&holders(&[(0, 1); 10]), 1, 1, 1000);
        assert_eq!(exact.caps, [110; 10]);
    }

    #[test]
    fn a_node_holds_a_partition_once_and_what_it_cannot_hold_is_reported() {
        let shares = Shares::of(&holders(&[(0, 8), (1, 1), (2, 1)]), 3, 2, 100);
        assert_eq!(shares.caps, [100, 55, 55]);
        assert_eq!(shares.unusable, [60, 0, 0]);
    }

    #[test]
    fn a_full_zone_leaves_the_rest_to_the_others() {
        let shares = Shares::of(&holders(&[(0, 2), (0, 2), (1, 1), (2, 1)]), 3, 3, 60);
        assert_eq!(shares.zone_cap, 1);
        assert_eq!(shares.caps, [33, 33, 60, 60]);
        assert_eq!(shares.unusable, [30, 30, 0, 0]);
    }

    #[test]
    fn zones_with_too_few_nodes_raise_the_cap_of_all() {
        assert_eq!(Shares::of(&holders(&[(0, 1), (1, 1), (2, 1), (2, 1), (2, 1)]), 3, 5, 8).zone_cap, 3);
    }
}
