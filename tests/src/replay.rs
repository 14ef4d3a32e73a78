//! Replays language-neutral histories of one key on three replicas of the product's own objects.
//!
//! What: a file of cases (format: `tests/cases/README.md`) becomes one JSON document with every read and the state of each
//! replica after all exchanged everything. Operations are bound and merged by `shoal_protocol::object`, contexts travel as
//! encoded contexts, replicas exchange canonical bytes.
//! Chosen where the format is silent: a map field that holds several types at once is shown as `{type: value}`.

mod case;
mod replicas;
mod shape;

use serde_json::{Map, Value, json};

use case::{Case, File, Kind, Op};
use replicas::{Reading, Replica};

/// Why a file was not replayed.
#[derive(Debug)]
pub enum ReplayError {
    /// It is not JSON, or not of the shape of a file of cases.
    File(serde_json::Error),
    /// A case cannot be run.
    Case {
        /// The case's id.
        id: Value,
        /// Which of its operations, from 1.
        op_number: usize,
        /// What is wrong with it.
        reason: String,
    },
}

impl std::fmt::Display for ReplayError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(error) => write!(f, "not a file of cases: {error}"),
            Self::Case { id, op_number, reason } => write!(f, "case {id}, operation {op_number}: {reason}"),
        }
    }
}

impl std::error::Error for ReplayError {}

/// Runs every case of a file; the document lists them in order.
///
/// # Errors
/// See `ReplayError`: the first case that cannot be run stops the replay.
pub fn replay(text: &str) -> Result<Value, ReplayError> {
    let file: File = serde_json::from_str(text).map_err(ReplayError::File)?;
    file.cases.iter().map(|case| run(file.kind, case)).collect()
}

fn run(kind: Kind, case: &Case) -> Result<Value, ReplayError> {
    let mut world = World { kind, replicas: Replica::three(), reads: Map::new(), seen: Vec::new() };
    for (index, op) in case.ops.iter().enumerate() {
        let outcome = serde_json::from_value(op.clone()).map_err(|error| error.to_string());
        outcome.and_then(|op| world.apply(&op)).map_err(|reason| ReplayError::Case {
            id: case.id.clone(),
            op_number: index + 1,
            reason,
        })?;
    }
    let World { mut replicas, reads, .. } = world;
    Replica::exchange_all(&mut replicas);
    let finals: Map<String, Value> =
        replicas.iter().map(|replica| (replica.name.into(), shape::shown(kind, &replica.object))).collect();
    Ok(json!({ "id": case.id, "reads": reads, "final": finals }))
}

/// One case under way.
struct World {
    kind: Kind,
    replicas: [Replica; 3],
    /// What each named read showed.
    reads: Map<String, Value>,
    /// What each named read saw, newest last.
    seen: Vec<(String, Reading)>,
}

impl World {
    fn apply(&mut self, op: &Op) -> Result<(), String> {
        match op {
            Op::Read { at, name } => {
                let replica = &self.replicas[self.index(at)?];
                self.reads.insert(name.clone(), shape::shown(self.kind, &replica.object));
                self.seen.push((name.clone(), replica.read()));
                Ok(())
            }
            Op::Sync { a, b } => {
                self.replicate(a, b)?;
                self.replicate(b, a)
            }
            Op::ReplicateOneWay { from, to } => self.replicate(from, to),
            Op::Write(write) => {
                if write.kind() != self.kind {
                    return Err(format!("a {} has no such operation", self.kind.name()));
                }
                let at = self.index(&write.at)?;
                let reading = write.ctx.as_deref().map(|name| self.reading(name)).transpose()?;
                let operation = write.operation(reading.is_some());
                let observed = reading.map(|reading| reading.observed(&operation)).transpose()?;
                self.replicas[at].apply(&operation, observed.as_ref())
            }
        }
    }

    fn replicate(&mut self, from: &str, to: &str) -> Result<(), String> {
        let bytes = self.replicas[self.index(from)?].object.encode();
        let to = self.index(to)?;
        self.replicas[to].receive(&bytes);
        Ok(())
    }

    fn index(&self, name: &str) -> Result<usize, String> {
        let found = self.replicas.iter().position(|replica| replica.name == name);
        found.ok_or_else(|| format!("there is no replica `{name}`; there are A, B and C"))
    }

    fn reading(&self, name: &str) -> Result<&Reading, String> {
        let found = self.seen.iter().rev().find(|(seen, _)| seen == name);
        found.map(|(_, reading)| reading).ok_or_else(|| format!("no earlier read is named `{name}`"))
    }
}
