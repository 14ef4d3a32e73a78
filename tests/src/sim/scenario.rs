//! What a seed stands for: cluster, keyspaces, faults and workload of one history.

use std::fmt;

use bytes::Bytes;
use shoal_protocol::address::KeyspaceName;
use shoal_protocol::client::{KeyspaceLayout, KeyspaceSpec, QuorumMode};
use shoal_protocol::id::Class;
use shoal_protocol::object::{Conflict, Limits};

use super::dice::Dice;

/// One history's setting.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// The seed.
    pub seed: u64,
    /// Nodes that form the cluster.
    pub nodes: usize,
    /// Nodes that come later.
    pub newcomers: usize,
    /// Nodes that are to leave.
    pub leavers: Vec<usize>,
    /// Stores of each node.
    pub stores: u8,
    /// Clients.
    pub clients: usize,
    /// Operations that clients begin.
    pub steps: usize,
    /// Keyspaces, in the order of creation.
    pub keyspaces: Vec<(KeyspaceName, KeyspaceSpec)>,
    /// Kinds of keys that clients work on.
    pub kinds: Vec<KeyKind>,
    /// Links.
    pub network: NetworkProfile,
    /// Disks.
    pub storage: StorageProfile,
    /// Faults.
    pub faults: FaultProfile,
    /// What nodes admit.
    pub limits: Limits,
    /// How far wall clocks are apart, ms each way.
    pub skew_ms: u64,
    /// Whether one node of three stays away for a while when everything else is well again.
    pub lasting_fault: bool,
    /// Whether all nodes lose power once more at the very end.
    pub dark_end: bool,
    /// The machine that loses its disk, if one does.
    pub wiped: Option<usize>,
    /// Whether bits of one machine's rows flip at the end.
    pub rots: bool,
    /// Every row is verified so often, seconds.
    pub scrub_period_s: usize,
}

/// How links behave when they are not cut.
#[derive(Clone, Copy, Debug)]
pub struct NetworkProfile {
    /// One way, µs.
    pub delay_us: (u64, u64),
    /// Messages that take thirty times as long.
    pub straggler_permille: u32,
    /// Messages that vanish.
    pub loss_permille: u32,
    /// Messages that arrive twice.
    pub duplicate_permille: u32,
    /// After so much silence a connection is given up.
    pub notice_ms: u64,
}

impl NetworkProfile {
    /// A local network on a good day.
    pub const CALM: Self =
        Self { delay_us: (100, 400), straggler_permille: 0, loss_permille: 0, duplicate_permille: 0, notice_ms: 500 };
}

/// How disks behave when they do not fail.
#[derive(Clone, Copy, Debug)]
pub struct StorageProfile {
    /// Memory of one node's stores: small ones flush often.
    pub budget_bytes: usize,
    /// One group commit, µs.
    pub write_us: (u64, u64),
    /// One read, µs.
    pub read_us: (u64, u64),
    /// How long a completion lies around before the node sees it, µs.
    pub done_us: (u64, u64),
    /// Whether reads have a thread of their own.
    pub has_reader: bool,
}

/// Which faults come, and how often.
#[derive(Clone, Debug)]
pub struct FaultProfile {
    /// Kinds that come; none: a quiet history.
    pub kinds: Vec<FaultKind>,
    /// Pause between two, ms.
    pub pause_ms: (u64, u64),
    /// How long one lasts, ms.
    pub lasts_ms: (u64, u64),
    /// Whether they begin before the cluster is formed.
    pub from_start: bool,
}

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// Two sides that do not hear each other.
    Split,
    /// Two sides, and one node that hears both.
    Bridge,
    /// One link passes one way only.
    OneWay,
    /// One link comes and goes.
    Flap,
    /// One node alone.
    Isolate,
    /// Links stop one by one and are freed in another order.
    Swizzle,
    /// A node dies, with or without its last writes, and comes back.
    Crash,
    /// All nodes die at once.
    PowerCut,
    /// A node dies in the middle of a write.
    TornWrite,
    /// A node stops in good order and starts again.
    Restart,
    /// A node's messages take long.
    SlowNode,
    /// A node's disk takes long.
    SlowDisk,
    /// The disk reports an error; the engine is reopened.
    DiskError,
    /// The disk is full for a while.
    DiskFull,
    /// A wall clock jumps.
    ClockJump,
}

impl FaultKind {
    const ALL: [Self; 15] = [
        Self::Split,
        Self::Bridge,
        Self::OneWay,
        Self::Flap,
        Self::Isolate,
        Self::Swizzle,
        Self::Crash,
        Self::PowerCut,
        Self::TornWrite,
        Self::Restart,
        Self::SlowNode,
        Self::SlowDisk,
        Self::DiskError,
        Self::DiskFull,
        Self::ClockJump,
    ];
}

impl Scenario {
    /// The scenario of a seed; `steps` replaces the number of operations.
    #[must_use]
    pub fn draw(seed: u64, dice: &mut Dice, steps: Option<usize>) -> Self {
        let nodes = dice.pick(&[3, 3, 3, 3, 3, 5, 5, 1]);
        let faults = faults(dice, nodes);
        let mut keyspaces = keyspaces(dice, nodes);
        if seed.is_multiple_of(3) {
            keyspaces.iter_mut().for_each(|(_, spec)| spec.quorum = QuorumMode::Sloppy);
        }
        Self {
            seed,
            nodes,
            clients: dice.pick(&[2, 3, 4]),
            steps: steps.unwrap_or(dice.pick(&[60, 90, 140])),
            keyspaces,
            kinds: kinds(dice),
            network: network(dice),
            storage: storage(dice),
            limits: limits(dice),
            skew_ms: dice.pick(&[0, 100, 20_000]),
            lasting_fault: dice.percent(40),
            dark_end: dice.percent(25),
            wiped: None,
            newcomers: 0,
            leavers: Vec::new(),
            rots: false,
            scrub_period_s: 3_600,
            stores: dice.pick(&[1, 1, 1, 2, 3]),
            faults,
        }
    }

    /// All machines there ever are.
    #[must_use]
    pub fn machines(&self) -> usize {
        self.nodes + self.newcomers
    }

    /// Makes it a history in which nodes come and go while clients work.
    pub fn grow(&mut self, dice: &mut Dice) {
        self.nodes = dice.pick(&[3, 3, 4, 5]);
        self.newcomers = dice.pick(&[1, 2, 2, 3]);
        for (_, spec) in &mut self.keyspaces {
            let (n, r, w) = dice.pick(&[(3, 0, 0), (3, 0, 0), (3, 2, 2), (3, 1, 3), (3, 3, 1)]);
            spec.class = Class { n, r, w };
        }
        let all = dice.shuffled((0..self.machines()).collect());
        let most = self.machines().saturating_sub(3);
        self.leavers = all.into_iter().take(dice.index(most + 1)).collect();
        self.lasting_fault = false;
    }

    /// Makes it a history in which one machine loses its disk: every write is on W >= 2 replicas, and reads do without one
    /// of N.
    pub fn wipe_one(&mut self, dice: &mut Dice) {
        self.do_without_one(dice);
        // Reads cannot do without yet another one.
        self.lasting_fault = false;
        self.wiped = Some(dice.index(self.nodes));
    }

    /// Makes it a history at whose end rows of one machine rot, and are found and healed.
    pub fn rot_one(&mut self, dice: &mut Dice) {
        self.do_without_one(dice);
        self.rots = true;
        self.scrub_period_s = 20;
    }

    fn do_without_one(&mut self, dice: &mut Dice) {
        self.nodes = self.nodes.max(3);
        for (_, spec) in &mut self.keyspaces {
            let (n, r, w) = dice.pick(&[(3, 0, 0), (3, 2, 2), (3, 1, 3)]);
            spec.class = Class { n, r, w };
        }
    }
}

fn keyspaces(dice: &mut Dice, nodes: usize) -> Vec<(KeyspaceName, KeyspaceSpec)> {
    let classes: &[(u8, u8, u8)] = if nodes == 1 {
        &[(3, 0, 0), (1, 1, 1)]
    } else {
        &[(3, 0, 0), (3, 0, 0), (3, 2, 2), (3, 1, 3), (3, 3, 1), (3, 1, 1), (3, 3, 3), (2, 0, 0), (1, 1, 1)]
    };
    let spec = |dice: &mut Dice, layout, conflict| {
        let (n, r, w) = dice.pick(classes);
        KeyspaceSpec { class: Class { n, r, w }, layout, conflict, quorum: QuorumMode::Strict, ttl_s: None }
    };
    let name = |name: &str| KeyspaceName::new(name).expect("lower-case letters are a name");
    vec![
        (name("app"), spec(dice, KeyspaceLayout::Collection, Conflict::Siblings)),
        (name("cache"), spec(dice, KeyspaceLayout::Key, Conflict::Lww)),
        (name("more"), {
            let layout = dice.pick(&[KeyspaceLayout::Collection, KeyspaceLayout::Key]);
            let conflict = dice.pick(&[Conflict::Siblings, Conflict::Lww]);
            spec(dice, layout, conflict)
        }),
    ]
}

fn kinds(dice: &mut Dice) -> Vec<KeyKind> {
    let mut kinds = dice.shuffled(KeyKind::ALL.to_vec());
    kinds.truncate(dice.pick(&[1, 2, 4, 8, 8]));
    kinds
}

fn network(dice: &mut Dice) -> NetworkProfile {
    NetworkProfile {
        delay_us: dice.pick(&[(100, 400), (100, 5_000), (1_000, 60_000)]),
        straggler_permille: dice.pick(&[0, 10, 50]),
        loss_permille: dice.pick(&[0, 0, 10, 50]),
        duplicate_permille: dice.pick(&[0, 10, 100]),
        notice_ms: dice.pick(&[200, 1_000, 3_000]),
    }
}

fn storage(dice: &mut Dice) -> StorageProfile {
    StorageProfile {
        budget_bytes: dice.pick(&[8 << 10, 24 << 10, 4 << 20]),
        write_us: dice.pick(&[(50, 300), (500, 5_000), (1_000, 40_000)]),
        read_us: dice.pick(&[(20, 200), (100, 5_000)]),
        done_us: dice.pick(&[(0, 50), (0, 20_000)]),
        has_reader: dice.percent(70),
    }
}

fn faults(dice: &mut Dice, nodes: usize) -> FaultProfile {
    let kinds: Vec<FaultKind> = FaultKind::ALL
        .into_iter()
        .filter(|kind| {
            nodes > 1
                || !matches!(
                    kind,
                    FaultKind::Split
                        | FaultKind::Bridge
                        | FaultKind::OneWay
                        | FaultKind::Flap
                        | FaultKind::Isolate
                        | FaultKind::Swizzle
                )
        })
        .collect();
    let kinds = match dice.index(10) {
        0 => Vec::new(),
        1..=6 => {
            let mut some = dice.shuffled(kinds);
            some.truncate(3);
            some
        }
        _ => kinds,
    };
    FaultProfile {
        kinds,
        pause_ms: dice.pick(&[(50, 500), (200, 2_000)]),
        lasts_ms: dice.pick(&[(50, 500), (300, 3_000), (2_000, 8_000)]),
        from_start: dice.percent(30),
    }
}

fn limits(dice: &mut Dice) -> Limits {
    let usual = Limits::default();
    match dice.index(4) {
        0 => Limits { siblings_max: 2, ..usual },
        1 => Limits { siblings_max: 5, gaps_max: 4, object_bytes_max: 1_500, ..usual },
        _ => usual,
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, nodes, stores, clients, steps, newcomers, leavers, .. } = self;
        writeln!(f, "seed {seed}: {nodes} nodes of {stores} stores, {clients} clients, {steps} operations")?;
        if *newcomers > 0 {
            writeln!(f, "  {newcomers} nodes come later, {leavers:?} leave")?;
        }
        for (name, spec) in &self.keyspaces {
            let Class { n, r, w } = spec.class;
            writeln!(f, "  keyspace {name}: n {n}, r {r}, w {w}, {:?}, {:?}", spec.layout, spec.conflict)?;
        }
        writeln!(f, "  {:?}", self.network)?;
        writeln!(f, "  {:?}", self.storage)?;
        writeln!(f, "  {:?}", self.faults)?;
        writeln!(f, "  {:?}", self.kinds)?;
        if let Some(wiped) = self.wiped {
            writeln!(f, "  node {wiped} loses its disk")?;
        }
        writeln!(f, "  siblings at most {}, clocks {} ms apart", self.limits.siblings_max, self.skew_ms)
    }
}

/// What a key is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyKind {
    /// Values, by sessions.
    Register,
    /// On and off.
    Flag,
    /// A few elements, added and removed.
    Set,
    /// Additions and resets.
    Counter,
    /// Fields of every type.
    Map,
    /// Operations of every type.
    Mixed,
    /// Elements, each added once, some without a session.
    LooseSet,
    /// Additions, some without a session.
    LooseCounter,
}

impl KeyKind {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Register,
        Self::Flag,
        Self::Set,
        Self::Counter,
        Self::Map,
        Self::Mixed,
        Self::LooseSet,
        Self::LooseCounter,
    ];

    /// Whether operations without a session go there.
    #[must_use]
    pub fn is_loose(self) -> bool {
        matches!(self, Self::LooseSet | Self::LooseCounter)
    }

    /// The key's name.
    #[must_use]
    pub fn key(self) -> Bytes {
        Bytes::from_static(match self {
            Self::Register => b"register",
            Self::Flag => b"flag",
            Self::Set => b"set",
            Self::Counter => b"counter",
            Self::Map => b"map",
            Self::Mixed => b"mixed",
            Self::LooseSet => b"loose-set",
            Self::LooseCounter => b"loose-counter",
        })
    }
}

/// The collection that all keys of a keyspace with collections are in.
pub const COLLECTION: &[u8] = b"room";
