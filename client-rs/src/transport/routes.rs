//! Which nodes hold a key: the preference lists of each class, as some node told them.
//!
//! A route is a hint, never a condition: any node coordinates any request, a replica only saves a hop. So a table may be
//! old; it is asked for again in the background once it is `FRESH_FOR` old or a node it names could not be reached.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use shoal_protocol::client::Routes;
use shoal_protocol::id::{Class, NodeId, Partition};
use shoal_protocol::time::Instant;

use super::{Pool, Target, locked};

/// The routes of every class in use.
#[derive(Debug, Default)]
pub(crate) struct RouteTable {
    classes: Mutex<BTreeMap<Class, Known>>,
    asking: Mutex<BTreeSet<Class>>,
}

#[derive(Clone, Debug)]
struct Known {
    routes: Arc<Routes>,
    since: Instant,
}

impl RouteTable {
    /// Notes what a node told.
    pub(crate) fn learn(&self, class: Class, routes: Arc<Routes>, now: Instant) {
        locked(&self.classes).insert(class, Known { routes, since: now });
        locked(&self.asking).remove(&class);
    }

    /// Nobody told: the next request may ask again.
    pub(crate) fn not_learned(&self, class: Class) {
        locked(&self.asking).remove(&class);
    }

    /// Whether the caller should ask for the routes of `class` now; true for one caller at a time.
    pub(crate) fn wants(&self, class: Class, now: Instant) -> bool {
        let fresh = locked(&self.classes).get(&class).is_some_and(|known| now.since(known.since) < FRESH_FOR);
        !fresh && locked(&self.asking).insert(class)
    }

    /// A node could not be reached: ask again soon.
    pub(crate) fn doubt(&self, now: Instant) {
        for known in locked(&self.classes).values_mut() {
            // Not more often than once in a while, however many requests fail.
            if now.since(known.since) >= DOUBTED_AFTER {
                known.since = Instant::default();
            }
        }
    }

    /// The nodes to ask about `partition`: its replicas in order, then every other node, then the configured addresses.
    /// The second part of the answer is the number of replicas at the front.
    pub(crate) fn targets(&self, partition: Option<Partition>, seeds: &[String], pool: &Pool) -> (Vec<Target>, usize) {
        let known = locked(&self.classes);
        let routes = match partition {
            Some(partition) => known.get(&partition.class),
            None => known.values().next(),
        };
        let Some(routes) = routes.map(|known| Arc::clone(&known.routes)) else {
            return (seeds.iter().map(|seed| Target { addresses: vec![seed.clone()] }).collect(), 0);
        };
        drop(known);
        let preference = partition.and_then(|p| routes.preference.get(usize::from(p.index)));
        let replicas: Vec<usize> = preference.into_iter().flatten().map(|index| usize::from(*index)).collect();
        let others = (0..routes.nodes.len()).filter(|index| !replicas.contains(index));
        let mut targets = Vec::new();
        let mut replicas_count = 0;
        for index in replicas.iter().copied().chain(others) {
            let Some(node) = routes.nodes.get(index) else { continue };
            let target = target_of(node.node, &node.addresses, seeds, pool);
            if !target.addresses.is_empty() {
                replicas_count += usize::from(replicas.contains(&index));
                targets.push(target);
            }
        }
        for seed in seeds {
            if !targets.iter().any(|target| target.addresses.contains(seed)) {
                targets.push(Target { addresses: vec![seed.clone()] });
            }
        }
        (targets, replicas_count)
    }
}

/// A node's addresses; a configured one at which it has answered comes first, since it is known to lead there from here.
fn target_of(node: NodeId, advertised: &[String], seeds: &[String], pool: &Pool) -> Target {
    let mut addresses: Vec<String> = seeds.iter().filter(|seed| pool.id_at(seed) == Some(node)).cloned().collect();
    for address in advertised {
        if !addresses.contains(address) {
            addresses.push(address.clone());
        }
    }
    Target { addresses }
}

/// Layouts change by hand and rarely; a minute late costs a hop, nothing else.
const FRESH_FOR: Duration = Duration::from_secs(60);
/// A table that was doubted is asked for again at most this often.
const DOUBTED_AFTER: Duration = Duration::from_secs(2);
