//! What members send each other, as bytes; docs/formats/gossip.md is the description.
//!
//! Shape: version, kind, what the sender says of itself, what the kind needs, then claims about members up to the end. Who
//! sends is known from the connection and stands nowhere inside. Datagrams and stream messages have one format.
//! Invariants: decoding gives a value or an error, never panics, refuses trailing bytes, and takes memory in proportion to
//! the bytes there are; what was encoded decodes to itself.

mod description;
mod reader;

use bytes::{BufMut, Bytes, BytesMut};
use shoal_protocol::id::NodeId;

use crate::claim::{Claim, Version};
use crate::member::Liveness;

pub(crate) use description::{Description, DescriptionBytes};
use reader::Reader;

/// One datagram or stream message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    /// What the sender says of itself: alive or left.
    pub(crate) sender: Claim,
    pub(crate) body: Body,
    pub(crate) told: Vec<Told>,
}

/// What a message is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Body {
    /// `Ack` with the same number, at once.
    Ping { sequence: u32 },
    /// The member that was to be probed answers.
    Ack { sequence: u32 },
    /// The member that was to be probed has not answered yet, but I am here.
    Nack { sequence: u32 },
    /// Ping `target`; `Ack` when it answers, `Nack` when it has not by 80 % of the timeout.
    PingRequest { sequence: u32, target: NodeId },
    /// Nothing but news.
    News,
    /// My list has this summary. `Claims` when yours has another.
    Compare { summary: u64 },
    /// These are all my claims. `Answer` with those of yours that count more.
    Claims,
    /// Claims of mine that count more than yours.
    Answer,
    /// `Described` with what you know of these.
    Want { nodes: Vec<NodeId> },
    /// Claims with descriptions.
    Described,
}

/// A claim as it travels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) claim: Claim,
    /// Not looked into yet.
    pub(crate) description: Option<Bytes>,
}

/// The bytes are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Malformed {
    /// Another format. Whoever sent it may be right, and newer.
    #[error("format version {version}; this is {VERSION}")]
    ForeignVersion { version: u8 },
    #[error("ends in the middle of a field")]
    Truncated,
    #[error("{bytes} bytes; the limit is {BYTES_MAX}")]
    TooLong { bytes: usize },
    #[error("{value} is no value of a field")]
    BadValue { value: u64 },
    #[error("a text is no text, is too long, or has control characters")]
    BadText,
    #[error("trailing bytes")]
    Trailing,
}

impl Message {
    /// Reads what `from` sent.
    pub(crate) fn decode(from: NodeId, bytes: &Bytes) -> Result<Self, Malformed> {
        if bytes.len() > BYTES_MAX {
            return Err(Malformed::TooLong { bytes: bytes.len() });
        }
        let mut reader = Reader::new(bytes);
        let version = reader.u8()?;
        if version != VERSION {
            return Err(Malformed::ForeignVersion { version });
        }
        let kind = reader.u8()?;
        let state = match reader.u8()? {
            0 => Liveness::Alive,
            3 => Liveness::Left,
            value => return Err(Malformed::BadValue { value: value.into() }),
        };
        let sender = Claim::new(from, state, read_version(&mut reader)?);
        let body = read_body(kind, &mut reader)?;
        let mut told = Vec::new();
        while !reader.is_empty() {
            told.push(read_told(&mut reader, bytes)?);
        }
        Ok(Self { sender, body, told })
    }
}

/// A message being written, within a number of bytes.
#[derive(Debug)]
pub(crate) struct Draft {
    bytes: BytesMut,
    bytes_max: usize,
}

impl Draft {
    /// Begins a message of which `own` is the sender.
    pub(crate) fn new(own: &Claim, body: &Body, bytes_max: usize) -> Self {
        let mut bytes = BytesMut::with_capacity(128);
        bytes.put_slice(&[VERSION, kind(body), state_byte(own.state)]);
        write_version(&mut bytes, own.version);
        match body {
            Body::Ping { sequence } | Body::Ack { sequence } | Body::Nack { sequence } => bytes.put_u32(*sequence),
            Body::PingRequest { sequence, target } => {
                bytes.put_u32(*sequence);
                bytes.put_u64(target.0);
            }
            Body::News | Body::Claims | Body::Answer | Body::Described => {}
            Body::Compare { summary } => bytes.put_u64(*summary),
            Body::Want { nodes } => {
                debug_assert!(nodes.len() <= WANT_COUNT_MAX);
                bytes.put_u16(nodes.len() as u16);
                nodes.iter().for_each(|node| bytes.put_u64(node.0));
            }
        }
        Self { bytes, bytes_max: bytes_max.min(BYTES_MAX) }
    }

    /// Appends a claim, if it fits whole.
    pub(crate) fn put(&mut self, claim: &Claim, description: Option<&DescriptionBytes>) -> bool {
        let before = self.bytes.len();
        self.bytes.put_u64(claim.node.0);
        self.bytes.put_u8(state_byte(claim.state) | if description.is_some() { DESCRIBED } else { 0 });
        write_version(&mut self.bytes, claim.version);
        if let Some(by) = claim.suspected_by {
            self.bytes.put_u64(by.0);
        }
        if let Some(description) = description {
            self.bytes.put_u16(description.len());
            self.bytes.put_slice(description);
        }
        let fits = self.bytes.len() <= self.bytes_max;
        if !fits {
            self.bytes.truncate(before);
        }
        fits
    }

    /// Whether not even the shortest claim fits.
    pub(crate) fn is_full(&self) -> bool {
        self.bytes.len() + CLAIM_BYTES_MIN > self.bytes_max
    }

    pub(crate) fn finish(self) -> Bytes {
        self.bytes.freeze()
    }
}

fn kind(body: &Body) -> u8 {
    match body {
        Body::Ping { .. } => 1,
        Body::Ack { .. } => 2,
        Body::Nack { .. } => 3,
        Body::PingRequest { .. } => 4,
        Body::News => 5,
        Body::Compare { .. } => 16,
        Body::Claims => 17,
        Body::Answer => 18,
        Body::Want { .. } => 19,
        Body::Described => 20,
    }
}

fn read_body(kind: u8, reader: &mut Reader<'_>) -> Result<Body, Malformed> {
    Ok(match kind {
        1 => Body::Ping { sequence: reader.u32()? },
        2 => Body::Ack { sequence: reader.u32()? },
        3 => Body::Nack { sequence: reader.u32()? },
        4 => Body::PingRequest { sequence: reader.u32()?, target: NodeId(reader.u64()?) },
        5 => Body::News,
        16 => Body::Compare { summary: reader.u64()? },
        17 => Body::Claims,
        18 => Body::Answer,
        19 => {
            let count = usize::from(reader.u16()?);
            if count > WANT_COUNT_MAX {
                return Err(Malformed::BadValue { value: count as u64 });
            }
            Body::Want { nodes: (0..count).map(|_| reader.u64().map(NodeId)).collect::<Result<_, _>>()? }
        }
        20 => Body::Described,
        value => return Err(Malformed::BadValue { value: value.into() }),
    })
}

fn read_told(reader: &mut Reader<'_>, whole: &Bytes) -> Result<Told, Malformed> {
    let node = NodeId(reader.u64()?);
    let flags = reader.u8()?;
    let version = read_version(reader)?;
    let claim = match flags & !DESCRIBED {
        0 => Claim::new(node, Liveness::Alive, version),
        1 => Claim::suspect(node, version, NodeId(reader.u64()?)),
        2 => Claim::new(node, Liveness::Down, version),
        3 => Claim::new(node, Liveness::Left, version),
        value => return Err(Malformed::BadValue { value: value.into() }),
    };
    let description = if flags & DESCRIBED == 0 {
        None
    } else {
        let length = usize::from(reader.u16()?);
        Some(whole.slice_ref(reader.bytes(length)?))
    };
    Ok(Told { claim, description })
}

const fn state_byte(state: Liveness) -> u8 {
    match state {
        Liveness::Alive => 0,
        Liveness::Suspect => 1,
        Liveness::Down => 2,
        Liveness::Left => 3,
    }
}

fn write_version(bytes: &mut BytesMut, version: Version) {
    let mut rest = version.incarnation;
    while rest > 0x7f {
        bytes.put_u8(rest as u8 | 0x80);
        rest >>= 7;
    }
    bytes.put_u8(rest as u8);
    bytes.put_u64(version.boot_nonce);
    bytes.put_u64(version.digest);
}

fn read_version(reader: &mut Reader<'_>) -> Result<Version, Malformed> {
    let incarnation = reader.varint()?;
    if incarnation > INCARNATION_MAX {
        return Err(Malformed::BadValue { value: incarnation });
    }
    Ok(Version { incarnation, boot_nonce: reader.u64()?, digest: reader.u64()? })
}

/// This format.
const VERSION: u8 = 1;
/// Bit 7 of a claim's state: a description follows.
const DESCRIBED: u8 = 0x80;
/// Id, state, version with an incarnation of one byte.
const CLAIM_BYTES_MIN: usize = 8 + 1 + 1 + 8 + 8;
/// Of one message: the claims about as many members as there may be take 45 KB.
pub(crate) const BYTES_MAX: usize = 64 * 1024;
/// Descriptions asked for at a time.
pub(crate) const WANT_COUNT_MAX: usize = 256;
/// Above it there is room for all that a member can refute in its life.
pub(crate) const INCARNATION_MAX: u64 = 1 << 62;

#[cfg(test)]
mod tests;
