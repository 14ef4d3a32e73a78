//! Which nodes hold a key: the preference lists of each class, as some node told them.
//!
//! A route is a hint, never a condition: any node coordinates any request, a replica only saves a hop. So a table may be
//! old; it is asked for again in the background once it is `FRESH_FOR` old or a node it names could not be reached.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use shoal_protocol::client::{NodeEndpoint, Routes};
use shoal_protocol::id::{Class, NodeId, Partition};
use shoal_protocol::time::Instant;

use super::{Pool, Target, locked};

/// The routes of every class in use.
#[derive(Debug)]
pub(crate) struct RouteTable {
    /// The configured addresses: what there is before anything was learned.
    seeds: Vec<Arc<Target>>,
    classes: Mutex<BTreeMap<Class, Known>>,
    asking: Mutex<BTreeSet<Class>>,
}

#[derive(Debug)]
struct Known {
    routes: Arc<Routes>,
    /// How to reach `routes.nodes`, in their order.
    nodes: Vec<Arc<Target>>,
    /// Configured addresses of which it is not known whose they are.
    others: Vec<Arc<Target>>,
    /// `None` once it was doubted.
    since: Option<Instant>,
    learned: Instant,
}

/// Whom to ask, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Candidates {
    pub(crate) targets: Vec<Arc<Target>>,
    /// So many at the front hold the key.
    pub(crate) replicas_count: usize,
}

impl RouteTable {
    pub(crate) fn new(seeds: &[String]) -> Self {
        let target = |seed: &String| Arc::new(Target { addresses: vec![seed.clone()] });
        Self { seeds: seeds.iter().map(target).collect(), classes: Mutex::default(), asking: Mutex::default() }
    }

    /// Notes what a node told.
    pub(crate) fn learn(&self, class: Class, routes: Arc<Routes>, pool: &Pool, now: Instant) {
        let seeds = || self.seeds.iter().flat_map(|seed| &seed.addresses);
        // An address at which a node has answered is known to lead there from here: it comes first.
        let proven: Vec<(Option<NodeId>, &String)> = seeds().map(|seed| (pool.id_at(seed), seed)).collect();
        let target_of = |node: &NodeEndpoint| {
            let own = proven.iter().filter(|(id, _)| *id == Some(node.node)).map(|(_, seed)| *seed);
            let mut addresses: Vec<String> = Vec::new();
            for address in own.chain(&node.addresses) {
                if !addresses.contains(address) {
                    addresses.push(address.clone());
                }
            }
            Arc::new(Target { addresses })
        };
        let nodes: Vec<Arc<Target>> = routes.nodes.iter().map(target_of).collect();
        let is_known = |seed: &Arc<Target>| nodes.iter().any(|node| node.addresses.contains(&seed.addresses[0]));
        let others = self.seeds.iter().filter(|seed| !is_known(seed)).cloned().collect();
        locked(&self.classes).insert(class, Known { routes, nodes, others, since: Some(now), learned: now });
        locked(&self.asking).remove(&class);
    }

    /// Nobody told: the next request may ask again.
    pub(crate) fn not_learned(&self, class: Class) {
        locked(&self.asking).remove(&class);
    }

    /// Whether the caller should ask for the routes of `class` now; true for one caller at a time.
    pub(crate) fn wants(&self, class: Class, now: Instant) -> bool {
        let since = locked(&self.classes).get(&class).and_then(|known| known.since);
        let fresh = since.is_some_and(|since| now.since(since) < FRESH_FOR);
        !fresh && locked(&self.asking).insert(class)
    }

    /// A node could not be reached: ask again soon, but not for every request that fails.
    pub(crate) fn doubt(&self, now: Instant) {
        for known in locked(&self.classes).values_mut() {
            if now.since(known.learned) >= DOUBTED_AFTER {
                known.since = None;
            }
        }
    }

    /// The nodes to ask about `partition`: its replicas in order, then every other node, then the configured addresses.
    pub(crate) fn candidates(&self, partition: Option<Partition>) -> Candidates {
        let classes = locked(&self.classes);
        let known = match partition {
            Some(partition) => classes.get(&partition.class),
            None => classes.values().next(),
        };
        let Some(known) = known else { return Candidates { targets: self.seeds.clone(), replicas_count: 0 } };
        let preference = partition.and_then(|p| known.routes.preference.get(usize::from(p.index)));
        let replicas: Vec<usize> = preference.into_iter().flatten().map(|index| usize::from(*index)).collect();
        let reachable = |index: usize| known.nodes.get(index).filter(|node| !node.addresses.is_empty()).cloned();
        let mut targets: Vec<Arc<Target>> = replicas.iter().filter_map(|index| reachable(*index)).collect();
        let replicas_count = targets.len();
        targets.extend((0..known.nodes.len()).filter(|index| !replicas.contains(index)).filter_map(reachable));
        targets.extend(known.others.iter().cloned());
        Candidates { targets, replicas_count }
    }
}

/// Layouts change by hand and rarely; a minute late costs a hop, nothing else.
const FRESH_FOR: Duration = Duration::from_secs(60);
/// A table that was doubted is asked for again at most this often.
const DOUBTED_AFTER: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use shoal_protocol::id::ViewId;

    use super::*;
    use crate::transport::{Dial, DialError, Dialing, Greeting};

    const CLASS: Class = Class { n: 3, r: 0, w: 0 };

    struct Nobody;

    impl Dial for Nobody {
        fn dial<'a>(&'a self, address: &'a str) -> Dialing<'a> {
            let reason = "nobody".into();
            Box::pin(async move { Err(DialError::Unreachable { address: address.into(), reason }) })
        }
    }

    fn routes(names: &[&str], preference: Vec<u16>) -> Arc<Routes> {
        let node = |(n, name): (usize, &&str)| NodeEndpoint {
            node: NodeId(n as u64),
            name: (*name).into(),
            zone: String::new(),
            weight: 100,
            addresses: vec![(*name).into()],
        };
        let nodes = names.iter().enumerate().map(node).collect();
        Arc::new(Routes { view: ViewId(1), nodes, preference: vec![preference] })
    }

    fn names(table: &RouteTable, index: u16) -> (Vec<String>, usize) {
        let candidates = table.candidates(Some(Partition { class: CLASS, index }));
        (candidates.targets.iter().map(|target| target.name().to_owned()).collect(), candidates.replicas_count)
    }

    fn table() -> (RouteTable, Pool) {
        let pool = Pool::new(Arc::new(Nobody), Greeting { access_token: None, software: String::new() });
        (RouteTable::new(&["b".into(), "x".into()]), pool)
    }

    #[test]
    fn replicas_come_first_and_configured_addresses_are_never_dropped() {
        let (table, pool) = table();
        assert_eq!(names(&table, 0), (vec!["b".into(), "x".into()], 0));
        table.learn(CLASS, routes(&["a", "b", "c"], vec![2, 1]), &pool, Instant(0));
        assert_eq!(names(&table, 0), (["c", "b", "a", "x"].map(String::from).into(), 2));
        assert_eq!(names(&table, 1), (["a", "b", "c", "x"].map(String::from).into(), 0), "no such partition");
        table.learn(CLASS, routes(&["a"], vec![0, 9]), &pool, Instant(0));
        assert_eq!(names(&table, 0), (["a", "b", "x"].map(String::from).into(), 1), "an index out of range");
    }

    #[test]
    fn one_caller_asks_when_routes_are_missing_old_or_doubted() {
        let (table, pool) = table();
        let (start, soon) = (Instant(0), Instant(0) + DOUBTED_AFTER);
        assert!(table.wants(CLASS, start));
        assert!(!table.wants(CLASS, start), "somebody asks already");
        table.not_learned(CLASS);
        assert!(table.wants(CLASS, start));
        table.learn(CLASS, routes(&["a"], vec![0]), &pool, start);
        assert!(!table.wants(CLASS, soon));
        table.doubt(start);
        assert!(!table.wants(CLASS, soon), "doubted too early to matter");
        table.doubt(soon);
        assert!(table.wants(CLASS, soon));
        table.learn(CLASS, routes(&["a"], vec![0]), &pool, soon);
        assert!(table.wants(CLASS, soon + FRESH_FOR));
    }
}
