//! The canonical bytes of an object.
//!
//! Shape: a version byte, then MessagePack `[actors, context, body]`; dots name an actor by its place in the table. Byte by
//! byte in `docs/formats/object.md`.
//! Invariant: one object has one encoding, and `decode` accepts no other: `decode(bytes)?.encode() == bytes`.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::causality::{ActorTable, Context, Dot};
use crate::id::Actor;
use crate::msgpack::{
    DecodeError, Kind, Reader, write_array, write_bin, write_int, write_map, write_nil, write_str, write_uint,
};
use crate::object::Object;
use crate::object::body::Body;
use crate::object::counter::{Cell, Counter};
use crate::object::dot_map::{DotMap, DotSet};
use crate::object::element::Element;
use crate::object::join::DotStore;
use crate::object::keyed::{Key, Keyed};
use crate::object::register::Entry;
use crate::object::value::{ContentType, TypeTag, Value};
use crate::time::{Hlc, WallTime};

/// The deepest nesting of maps that is encoded and decoded. Admission allows far less.
pub const DEPTH_MAX: usize = 64;

impl Object {
    /// The canonical bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(self.weight());
        self.encode_to(&mut out);
        out.into()
    }

    /// Appends the canonical bytes to `out`.
    pub fn encode_to(&self, out: &mut Vec<u8>) {
        let mut actors: Vec<Actor> = self.context.actors().collect();
        self.body.each_cell(&mut |actor, _| actors.push(actor));
        let actors = ActorTable::new(actors.into_iter());
        out.push(VERSION);
        write_array(out, 3);
        actors.write(out);
        self.context.write(out, &actors);
        write_body(out, &self.body, &actors);
    }

    /// Reads canonical bytes, copying values out.
    ///
    /// # Errors
    /// The input is not exactly one object in canonical form.
    pub fn decode(input: &[u8]) -> Result<Self, DecodeError> {
        Self::read(Reader::new(input))
    }

    /// Reads canonical bytes; values are slices of `input`, which lives on with them.
    ///
    /// # Errors
    /// The input is not exactly one object in canonical form.
    pub fn decode_shared(input: &Bytes) -> Result<Self, DecodeError> {
        Self::read(Reader::shared(input))
    }

    fn read(mut reader: Reader<'_>) -> Result<Self, DecodeError> {
        let found = reader.byte()?;
        if found != VERSION {
            return Err(DecodeError::Version { found });
        }
        if reader.array()? != 3 {
            return Err(DecodeError::Kind { expected: "[actors, context, body]" });
        }
        let actors = ActorTable::read(&mut reader)?;
        let context = Context::read(&mut reader, &actors)?;
        let mut input = BodyReader { reader, actors, context, live: Vec::new() };
        let body = input.body(0)?;
        let BodyReader { reader, actors, context, mut live } = input;
        reader.finish()?;
        live.sort_unstable();
        if !live.is_sorted_by(|a, b| a < b) {
            return Err(DecodeError::NotCanonical { rule: "a dot lives at one place" });
        }
        let mut used: Vec<Actor> = context.actors().collect();
        body.each_cell(&mut |actor, _| used.push(actor));
        if !actors.iter().eq(ActorTable::new(used.into_iter()).iter()) {
            return Err(DecodeError::NotCanonical { rule: "the actor table holds the actors used, no others" });
        }
        Ok(Self::new(context, body))
    }
}

impl Serialize for Object {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.encode())
    }
}

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = Bytes::deserialize(deserializer)?;
        Self::decode_shared(&bytes).map_err(serde::de::Error::custom)
    }
}

fn write_body(out: &mut Vec<u8>, body: &Body, actors: &ActorTable) {
    let present = |tag: &TypeTag| match tag {
        TypeTag::Register => !body.register.is_empty(),
        TypeTag::Flag => !body.flag.is_empty(),
        TypeTag::Set => !body.set.is_empty(),
        TypeTag::Counter => !body.counter.is_empty(),
        TypeTag::Map => !body.map.is_empty(),
    };
    write_map(out, TypeTag::ALL.iter().filter(|tag| present(tag)).count());
    for tag in TypeTag::ALL.iter().filter(|tag| present(tag)) {
        out.push(tag.number());
        match tag {
            TypeTag::Register => write_register(out, &body.register, actors),
            TypeTag::Flag => write_dots(out, &body.flag, actors),
            TypeTag::Set => write_set(out, &body.set, actors),
            TypeTag::Counter => write_counter(out, &body.counter, actors),
            TypeTag::Map => {
                write_map(out, body.map.iter().len());
                for (field, body) in body.map.iter() {
                    write_str(out, field);
                    write_body(out, body, actors);
                }
            }
        }
    }
}

fn write_register(out: &mut Vec<u8>, register: &DotMap<Entry>, actors: &ActorTable) {
    write_array(out, register.len());
    for (dot, Entry { hlc, value }) in register.iter() {
        write_array(out, 6);
        write_dot(out, dot, actors);
        write_uint(out, hlc.0);
        match &value.content_type {
            ContentType::Json => write_uint(out, 0),
            ContentType::Bytes => write_uint(out, 1),
            ContentType::MessagePack => write_uint(out, 2),
            other @ ContentType::Other(_) => write_str(out, other.name()),
        }
        match value.expires_at {
            Some(WallTime(end)) => write_uint(out, end),
            None => write_nil(out),
        }
        write_bin(out, &value.bytes);
    }
}

fn write_set(out: &mut Vec<u8>, set: &Keyed<Element, DotSet>, actors: &ActorTable) {
    write_map(out, set.iter().len());
    for (element, dots) in set.iter() {
        match element {
            Element::Text(text) => write_str(out, text),
            Element::Int(int) => write_int(out, *int),
            Element::Bytes(bytes) => write_bin(out, bytes),
        }
        write_dots(out, dots, actors);
    }
}

fn write_counter(out: &mut Vec<u8>, counter: &Counter, actors: &ActorTable) {
    write_array(out, 3);
    write_uint(out, EPOCH);
    write_array(out, 0);
    write_array(out, 5 * counter.iter().len());
    for (actor, cell) in counter.iter() {
        actors.write_index(out, actor);
        for total in [cell.p, cell.n, cell.pr, cell.nr] {
            write_uint(out, total);
        }
    }
}

fn write_dots(out: &mut Vec<u8>, dots: &DotSet, actors: &ActorTable) {
    write_array(out, 2 * dots.len());
    for (dot, ()) in dots.iter() {
        write_dot(out, dot, actors);
    }
}

fn write_dot(out: &mut Vec<u8>, dot: Dot, actors: &ActorTable) {
    actors.write_index(out, dot.actor);
    write_uint(out, dot.n);
}

/// Reads the stores of an object whose actors and context are known.
struct BodyReader<'a> {
    reader: Reader<'a>,
    actors: ActorTable,
    context: Context,
    /// Every dot read so far.
    live: Vec<Dot>,
}

impl BodyReader<'_> {
    fn body(&mut self, depth: usize) -> Result<Body, DecodeError> {
        let mut body = Body::default();
        let mut below = 0;
        for _ in 0..self.reader.map()? {
            let number = self.reader.byte()?;
            let tag = TypeTag::ALL.into_iter().find(|tag| tag.number() == number);
            let tag = tag.ok_or(DecodeError::Kind { expected: "a type tag" })?;
            ascending(below < number)?;
            below = number;
            let is_empty = match tag {
                TypeTag::Register => {
                    body.register = self.register()?;
                    body.register.is_empty()
                }
                TypeTag::Flag => {
                    body.flag = self.dots()?;
                    body.flag.is_empty()
                }
                TypeTag::Set => {
                    body.set = self.keyed(Self::element, Self::dots)?;
                    body.set.is_empty()
                }
                TypeTag::Counter => {
                    body.counter = self.counter()?;
                    body.counter.is_empty()
                }
                TypeTag::Map if depth == DEPTH_MAX => return Err(DecodeError::TooDeep { depth_max: DEPTH_MAX }),
                TypeTag::Map => {
                    body.map = self.keyed(|input| Ok(input.reader.str()?.to_owned()), |input| input.body(depth + 1))?;
                    body.map.is_empty()
                }
            };
            if is_empty {
                return Err(NO_EMPTY);
            }
        }
        Ok(body)
    }

    fn keyed<K: Key, V: DotStore>(
        &mut self,
        read_key: impl Fn(&mut Self) -> Result<K, DecodeError>,
        read_store: impl Fn(&mut Self) -> Result<V, DecodeError>,
    ) -> Result<Keyed<K, V>, DecodeError> {
        let mut stores: BTreeMap<K, V> = BTreeMap::new();
        for _ in 0..self.reader.map()? {
            let key = read_key(self)?;
            ascending(stores.last_key_value().is_none_or(|(last, _)| *last < key))?;
            let store = read_store(self)?;
            if store.is_empty() {
                return Err(NO_EMPTY);
            }
            stores.insert(key, store);
        }
        Ok(Keyed::from_stores(stores))
    }

    fn element(&mut self) -> Result<Element, DecodeError> {
        match self.reader.kind()? {
            Kind::Str => Ok(Element::Text(self.reader.str()?.to_owned())),
            Kind::Unsigned | Kind::Negative => Ok(Element::Int(self.reader.int()?)),
            Kind::Bin => Ok(Element::Bytes(self.reader.bin()?)),
            Kind::Array | Kind::Map | Kind::Nil => Err(DecodeError::Kind { expected: "a set element" }),
        }
    }

    fn register(&mut self) -> Result<DotMap<Entry>, DecodeError> {
        let mut entries = Vec::new();
        for _ in 0..self.reader.array()? {
            if self.reader.array()? != 6 {
                return Err(DecodeError::Kind { expected: "[actor, n, hlc, content type, expiry, bytes]" });
            }
            let dot = self.dot()?;
            let hlc = Hlc(self.reader.uint()?);
            let content_type = self.content_type()?;
            let expires_at = if self.reader.kind()? == Kind::Nil {
                self.reader.nil()?;
                None
            } else {
                Some(WallTime(self.reader.uint()?))
            };
            let bytes = self.reader.bin()?;
            entries.push((dot, Entry { hlc, value: Value { content_type, bytes, expires_at } }));
        }
        DotMap::from_sorted(entries).ok_or(ASCENDING)
    }

    fn content_type(&mut self) -> Result<ContentType, DecodeError> {
        if self.reader.kind()? == Kind::Str {
            let content_type = ContentType::new(self.reader.str()?);
            let other = content_type.ok().filter(|content_type| matches!(content_type, ContentType::Other(_)));
            return other.ok_or(DecodeError::NotCanonical { rule: "a known content type is a number" });
        }
        match self.reader.uint()? {
            0 => Ok(ContentType::Json),
            1 => Ok(ContentType::Bytes),
            2 => Ok(ContentType::MessagePack),
            _ => Err(DecodeError::Kind { expected: "a content type" }),
        }
    }

    fn counter(&mut self) -> Result<Counter, DecodeError> {
        if self.reader.array()? != 3 || self.reader.uint()? != EPOCH || self.reader.array()? != 0 {
            return Err(DecodeError::Kind { expected: "[epoch 0, empty base, cells]" });
        }
        let count = self.reader.array()?;
        if count % 5 != 0 {
            return Err(DecodeError::Kind { expected: "cells of five numbers" });
        }
        let mut cells: Vec<(Actor, Cell)> = Vec::new();
        for _ in 0..count / 5 {
            let actor = self.actors.read_index(&mut self.reader)?;
            ascending(cells.last().is_none_or(|(last, _)| *last < actor))?;
            let mut total = || self.reader.uint();
            let cell = Cell { p: total()?, n: total()?, pr: total()?, nr: total()? };
            if cell.is_zero() {
                return Err(NO_EMPTY);
            }
            cells.push((actor, cell));
        }
        Ok(Counter::from_cells(cells.into_iter()))
    }

    fn dots(&mut self) -> Result<DotSet, DecodeError> {
        let count = self.reader.array()?;
        if count % 2 != 0 {
            return Err(DecodeError::Kind { expected: "dots of two numbers" });
        }
        let mut dots = Vec::new();
        for _ in 0..count / 2 {
            dots.push((self.dot()?, ()));
        }
        DotMap::from_sorted(dots).ok_or(ASCENDING)
    }

    fn dot(&mut self) -> Result<Dot, DecodeError> {
        let dot = Dot { actor: self.actors.read_index(&mut self.reader)?, n: self.reader.uint()? };
        if dot.n == 0 || !self.context.covers(dot) {
            return Err(DecodeError::Uncovered);
        }
        self.live.push(dot);
        Ok(dot)
    }
}

fn ascending(holds: bool) -> Result<(), DecodeError> {
    if holds { Ok(()) } else { Err(ASCENDING) }
}

const VERSION: u8 = 1;
const EPOCH: u64 = 0;
const ASCENDING: DecodeError = DecodeError::NotCanonical { rule: "everything grows, and is there once" };
const NO_EMPTY: DecodeError = DecodeError::NotCanonical { rule: "empty stores and cells are left out" };

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::{Mint, Operation, Totals, bind};

    /// One of everything: the example of `docs/formats/object.md`.
    fn example() -> Object {
        let field = |operation| Operation::MapUpdate { field: "f".into(), operation: Box::new(operation) };
        let text = Value {
            content_type: ContentType::new("text/plain").unwrap(),
            bytes: Bytes::from_static(b"hi"),
            expires_at: Some(WallTime(300)),
        };
        let operations = [
            (Actor(5), 1, Operation::AddSibling { value: Value::json("1") }),
            (Actor(9), 7, Operation::AddSibling { value: text }),
            (Actor(5), 2, Operation::Enable),
            (Actor(5), 3, Operation::SetAdd { element: Element::Int(-1) }),
            (Actor(5), 4, Operation::SetAdd { element: Element::Text("x".into()) }),
            (Actor(5), 5, field(Operation::CounterAdd { by: 6 })),
        ];
        let mut object = Object::default();
        for (actor, n, operation) in operations {
            let total = Some(Totals { p: 6, n: 0 });
            let mint = Mint { dot: Dot { actor, n }, prev: n - 1, hlc: Hlc(n), total };
            object.merge_into(&bind(&operation, &mint, &Object::default()).unwrap());
        }
        object
    }

    #[test]
    fn the_bytes_are_as_documented() {
        #[rustfmt::skip]
        let bytes = [
            1, 0x93,
            0x92, 5, 9,
            0x92, 5, 0x92, 6, 7,
            0x84,
            1, 0x92,
                0x96, 0, 1, 1, 0, 0xc0, 0xc4, 1, b'1',
                0x96, 1, 7, 7, 0xaa, b't', b'e', b'x', b't', b'/', b'p', b'l', b'a', b'i', b'n',
                    0xcd, 1, 44, 0xc4, 2, b'h', b'i',
            2, 0x92, 0, 2,
            3, 0x82, 0xa1, b'x', 0x92, 0, 4, 0xff, 0x92, 0, 3,
            5, 0x81, 0xa1, b'f', 0x81, 4, 0x93, 0, 0x90, 0x95, 0, 6, 0, 0, 0,
        ];
        assert_eq!(example().encode(), bytes[..]);
        assert_eq!(Object::decode(&bytes), Ok(example()));
        assert_eq!(Object::default().encode(), [1, 0x93, 0x90, 0x90, 0x80][..]);
    }

    #[test]
    fn what_is_not_canonical_is_named() {
        let refused = |bytes: &[u8]| Object::decode(bytes).unwrap_err();
        assert_eq!(refused(&[2, 0x93, 0x90, 0x90, 0x80]), DecodeError::Version { found: 2 });
        assert_eq!(refused(&[1, 0x93, 0x90, 0x90, 0x80, 0]), DecodeError::Trailing { bytes: 1 });
        assert_eq!(refused(&[1, 0x93, 0x90, 0x90]), DecodeError::Truncated);
        assert_eq!(refused(&[1, 0x93, 0x91, 5, 0x91, 1, 0x81, 2, 0x90]), NO_EMPTY);
        assert_eq!(refused(&[1, 0x93, 0x91, 5, 0x91, 1, 0x81, 2, 0x92, 0, 2]), DecodeError::Uncovered);
        assert_eq!(refused(&[1, 0x93, 0x91, 5, 0x91, 2, 0x81, 2, 0x94, 0, 2, 0, 1]), ASCENDING);
        let twice = [1, 0x93, 0x91, 5, 0x91, 1, 0x82, 2, 0x92, 0, 1, 3, 0x81, 7, 0x92, 0, 1];
        assert_eq!(refused(&twice), DecodeError::NotCanonical { rule: "a dot lives at one place" });
        let newer = [1, 0x93, 0x91, 5, 0x91, 1, 0x81, 4, 0x93, 1, 0x90, 0x90];
        assert_eq!(refused(&newer), DecodeError::Kind { expected: "[epoch 0, empty base, cells]" });
        let mut deep = vec![1, 0x93, 0x90, 0x90];
        for _ in 0..=DEPTH_MAX {
            deep.extend([0x81, 5, 0x81, 0xa0]);
        }
        deep.push(0x80);
        assert_eq!(refused(&deep), DecodeError::TooDeep { depth_max: DEPTH_MAX });
    }

    #[test]
    fn a_value_decoded_from_a_frame_is_a_slice_of_it() {
        let frame = example().encode();
        let object = Object::decode_shared(&frame).unwrap();
        let (_, entry) = object.body.register.iter().next().unwrap();
        assert!(frame.as_ptr_range().contains(&entry.value.bytes.as_ptr()));
    }
}
