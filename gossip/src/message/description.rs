//! A description: what a member says of itself, but for its id and boot nonce, which stand in every claim.
//!
//! Invariants: one description has one encoding; a digest names one description.

use std::ops::Deref;

use bytes::{BufMut, Bytes, BytesMut};
use shoal_protocol::id::{Actor, LayoutId, NodeId};

use super::{Malformed, Reader};
use crate::claim::Version;
use crate::member::{
    ADDRESS_BYTES_MAX, ADDRESSES_COUNT_MAX, LAYOUTS_COUNT_MAX, Member, STORES_COUNT_MAX, StoreLease, TEXT_BYTES_MAX,
};

/// An encoded description that is within its limits, with its digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DescriptionBytes {
    bytes: Bytes,
    digest: u64,
}

impl DescriptionBytes {
    /// Of a member within its limits.
    pub(crate) fn of(member: &Member) -> Self {
        let mut out = BytesMut::new();
        for text in [&member.name, &member.zone, &member.version] {
            put_text(&mut out, text);
        }
        out.put_u32(member.weight);
        for addresses in [&member.advertise_peer, &member.advertise_client] {
            out.put_u8(addresses.len() as u8);
            addresses.iter().for_each(|address| put_text(&mut out, address));
        }
        out.put_u8(member.stores.len() as u8);
        for store in &member.stores {
            out.put_u64(store.incarnation.0);
            out.put_u64(store.lease_end);
        }
        out.put_u8(member.layouts.len() as u8);
        member.layouts.iter().for_each(|layout| out.put_u64(layout.0));
        Self { digest: digest(&out), bytes: out.freeze() }
    }

    /// The first 64 bits of BLAKE3.
    pub(crate) const fn digest(&self) -> u64 {
        self.digest
    }

    /// Its length; the limits of a member keep it far below 64 KiB.
    pub(crate) fn len(&self) -> u16 {
        u16::try_from(self.bytes.len()).expect("a member within its limits takes 9 KB")
    }
}

impl Deref for DescriptionBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

/// A description that was received and is good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Description {
    pub(crate) member: Member,
    pub(crate) bytes: DescriptionBytes,
}

impl Description {
    /// Of a member that was met, cut to its limits.
    pub(crate) fn of(member: Member) -> Self {
        let member = member.within_limits();
        let bytes = DescriptionBytes::of(&member);
        Self { member, bytes }
    }

    /// Reads the description of `node` that a claim of `version` came with, if it is the one that the claim names.
    pub(crate) fn decode(node: NodeId, version: Version, bytes: &Bytes) -> Result<Self, Malformed> {
        if digest(bytes) != version.digest {
            return Err(Malformed::BadValue { value: version.digest });
        }
        let mut reader = Reader::new(bytes);
        let mut text = || reader.text(TEXT_BYTES_MAX).map(str::to_owned);
        let (name, zone, software) = (text()?, text()?, text()?);
        let member = Member {
            node,
            name,
            zone,
            version: software,
            weight: reader.u32()?,
            advertise_peer: list(&mut reader, ADDRESSES_COUNT_MAX, address)?,
            advertise_client: list(&mut reader, ADDRESSES_COUNT_MAX, address)?,
            stores: list(&mut reader, STORES_COUNT_MAX, |reader| {
                Ok(StoreLease { incarnation: Actor(reader.u64()?), lease_end: reader.u64()? })
            })?,
            boot_nonce: version.boot_nonce,
            layouts: list(&mut reader, LAYOUTS_COUNT_MAX, |reader| Ok(LayoutId(reader.u64()?)))?,
        };
        if !reader.is_empty() {
            return Err(Malformed::Trailing);
        }
        // A copy: what arrived in one message with much else must not be kept alive by it.
        let bytes = DescriptionBytes { bytes: Bytes::copy_from_slice(bytes), digest: version.digest };
        Ok(Self { member, bytes })
    }
}

fn digest(bytes: &[u8]) -> u64 {
    u64::from_be_bytes(*blake3::hash(bytes).as_bytes().first_chunk().expect("a hash has 32 bytes"))
}

fn put_text(out: &mut BytesMut, text: &str) {
    out.put_u16(text.len() as u16);
    out.put_slice(text.as_bytes());
}

fn address(reader: &mut Reader<'_>) -> Result<String, Malformed> {
    reader.text(ADDRESS_BYTES_MAX).map(str::to_owned)
}

fn list<'a, T>(
    reader: &mut Reader<'a>,
    count_max: usize,
    mut item: impl FnMut(&mut Reader<'a>) -> Result<T, Malformed>,
) -> Result<Vec<T>, Malformed> {
    let count = usize::from(reader.u8()?);
    if count > count_max {
        return Err(Malformed::BadValue { value: count as u64 });
    }
    (0..count).map(|_| item(reader)).collect()
}
