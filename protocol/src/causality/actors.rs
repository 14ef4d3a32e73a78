//! The actors of one encoding, in order: dots name an actor by its place here.

use crate::id::Actor;
use crate::msgpack::{DecodeError, Reader, write_array, write_uint};

/// Actors in ascending order, each once.
#[derive(Debug)]
pub(crate) struct ActorTable(Vec<Actor>);

impl ActorTable {
    /// From actors in any order.
    pub(crate) fn new(actors: impl Iterator<Item = Actor>) -> Self {
        let mut actors: Vec<Actor> = actors.collect();
        actors.sort_unstable();
        actors.dedup();
        Self(actors)
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Actor> {
        self.0.iter().copied()
    }

    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        write_array(out, self.0.len());
        for actor in &self.0 {
            write_uint(out, actor.0);
        }
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let mut actors = Vec::new();
        for _ in 0..reader.array()? {
            let actor = Actor(reader.uint()?);
            if actors.last().is_some_and(|last| *last >= actor) {
                return Err(DecodeError::NotCanonical { rule: "actors grow" });
            }
            actors.push(actor);
        }
        Ok(Self(actors))
    }

    /// Writes the place of `actor`, which the table was made with.
    pub(crate) fn write_index(&self, out: &mut Vec<u8>, actor: Actor) {
        let index = self.0.binary_search(&actor).expect("a table is made from every actor of what is written with it");
        write_uint(out, index as u64);
    }

    pub(crate) fn read_index(&self, reader: &mut Reader<'_>) -> Result<Actor, DecodeError> {
        let index = usize::try_from(reader.uint()?).ok().and_then(|index| self.0.get(index));
        index.copied().ok_or(DecodeError::Kind { expected: "an index into the actor table" })
    }
}
