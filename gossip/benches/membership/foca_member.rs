//! A member run by the crate `foca` 2.0, another SWIM without I/O, in the same network.
//!
//! Its configuration is its own for local networks, which has the same period, timeout, indirect probes, suspicion and ticks
//! as ours without Lifeguard. Its codec is left to the user: this one is as terse as ours, with 8-byte ids.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use bytes::{Buf, BufMut, Bytes};
use foca::{
    AccumulatingRuntime, Codec, Config, Foca, Header, Identity, Message, NoCustomBroadcast, OwnedNotification, State,
    Timer,
};
use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng;
use shoal_gossip::Liveness;
use shoal_gossip::simulation::{Effect, Protocol};
use shoal_protocol::id::NodeId;
use shoal_protocol::time::Instant;

/// Node and how often it had to come back under a new identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Name {
    node: u64,
    life: u8,
}

pub(crate) struct FocaMember {
    foca: Foca<Name, Terse, ChaCha8Rng, NoCustomBroadcast>,
    timers: BTreeMap<(Instant, u64), Timer<Name>>,
    timers_count: u64,
}

impl FocaMember {
    pub(crate) fn new(node: NodeId, members_count: usize, seed: u64) -> Self {
        let size = NonZeroU32::new(members_count as u32).expect("a cluster has members");
        let rng = ChaCha8Rng::seed_from_u64(seed << 16 | node.0);
        let foca = Foca::new(Name { node: node.0, life: 0 }, Config::new_lan(size), rng, Terse);
        Self { foca, timers: BTreeMap::new(), timers_count: 0 }
    }

    fn perform(&mut self, now: Instant, mut runtime: AccumulatingRuntime<Name>, out: &mut Vec<Effect>) {
        while let Some((to, bytes)) = runtime.to_send() {
            let is_probe = bytes[KIND_AT] == PING;
            out.push(Effect::Send { to: NodeId(to.node), bytes, is_stream: false, is_probe });
        }
        while let Some((after, timer)) = runtime.to_schedule() {
            self.timers_count += 1;
            self.timers.insert((now + after, self.timers_count), timer);
        }
        while let Some(notification) = runtime.to_notify() {
            match notification {
                OwnedNotification::MemberUp(name) => out.push(Effect::Believe(NodeId(name.node), Liveness::Alive)),
                OwnedNotification::MemberDown(name) => out.push(Effect::Believe(NodeId(name.node), Liveness::Down)),
                OwnedNotification::Rename(..)
                | OwnedNotification::Active
                | OwnedNotification::Idle
                | OwnedNotification::Defunct
                | OwnedNotification::Rejoin(_) => {}
            }
        }
    }
}

impl Protocol for FocaMember {
    fn meet(&mut self, now: Instant, other: NodeId, out: &mut Vec<Effect>) {
        let mut runtime = AccumulatingRuntime::new();
        // It refuses what it cannot do; there is nobody else to tell.
        drop(self.foca.announce(Name { node: other.0, life: 0 }, &mut runtime));
        self.perform(now, runtime, out);
    }

    fn receive(&mut self, now: Instant, _from: NodeId, bytes: Bytes, out: &mut Vec<Effect>) {
        let mut runtime = AccumulatingRuntime::new();
        drop(self.foca.handle_data(&bytes, &mut runtime));
        self.perform(now, runtime, out);
    }

    fn tick(&mut self, now: Instant, out: &mut Vec<Effect>) {
        let later = self.timers.split_off(&(now, u64::MAX));
        let mut due: Vec<_> = std::mem::replace(&mut self.timers, later).into_values().collect();
        due.sort();
        for timer in due {
            let mut runtime = AccumulatingRuntime::new();
            drop(self.foca.handle_timer(timer, &mut runtime));
            self.perform(now, runtime, out);
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        self.timers.keys().next().map(|(at, _)| *at)
    }

    fn believes(&self, other: NodeId) -> Liveness {
        let known = self.foca.iter_membership_state().find(|member| member.id().node == other.0);
        known.map_or(Liveness::Down, |member| match member.state() {
            State::Alive => Liveness::Alive,
            State::Suspect => Liveness::Suspect,
            State::Down => Liveness::Down,
        })
    }
}

impl Identity for Name {
    type Addr = u64;

    fn renew(&self) -> Option<Self> {
        Some(Self { life: self.life.wrapping_add(1), ..*self })
    }

    fn addr(&self) -> u64 {
        self.node
    }

    fn win_addr_conflict(&self, adversary: &Self) -> bool {
        self.life > adversary.life
    }
}

/// Fixed fields, big-endian.
pub(crate) struct Terse;

/// The bytes are none of this codec's, or there is no room.
#[derive(Debug)]
pub(crate) struct Unfit;

impl std::fmt::Display for Unfit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("does not fit")
    }
}

impl std::error::Error for Unfit {}

impl Codec<Name> for Terse {
    type Error = Unfit;

    fn encode_header(&mut self, header: &Header<Name>, mut buf: impl BufMut) -> Result<(), Unfit> {
        let (kind, number, other) = match header.message {
            Message::Ping(number) => (PING, Some(number), None),
            Message::Ack(number) => (1, Some(number), None),
            Message::PingReq { target, probe_number } => (2, Some(probe_number), Some(target)),
            Message::IndirectPing { origin, probe_number } => (3, Some(probe_number), Some(origin)),
            Message::IndirectAck { target, probe_number } => (4, Some(probe_number), Some(target)),
            Message::ForwardedAck { origin, probe_number } => (5, Some(probe_number), Some(origin)),
            Message::Announce => (6, None, None),
            Message::Feed => (7, None, None),
            Message::Gossip => (8, None, None),
            Message::Broadcast => (9, None, None),
            Message::TurnUndead => (10, None, None),
        };
        buf.put_u8(kind);
        put_name(header.src, &mut buf);
        buf.put_u16(header.src_incarnation);
        put_name(header.dst, &mut buf);
        number.into_iter().for_each(|number| buf.put_u8(number));
        other.into_iter().for_each(|name| put_name(name, &mut buf));
        Ok(())
    }

    fn decode_header(&mut self, mut buf: impl Buf) -> Result<Header<Name>, Unfit> {
        let kind = buf.try_get_u8().map_err(|_| Unfit)?;
        let src = name(&mut buf)?;
        let src_incarnation = buf.try_get_u16().map_err(|_| Unfit)?;
        let dst = name(&mut buf)?;
        let probe_number = if kind <= 5 { buf.try_get_u8().map_err(|_| Unfit)? } else { 0 };
        let message = match kind {
            PING => Message::Ping(probe_number),
            1 => Message::Ack(probe_number),
            2 => Message::PingReq { target: name(&mut buf)?, probe_number },
            3 => Message::IndirectPing { origin: name(&mut buf)?, probe_number },
            4 => Message::IndirectAck { target: name(&mut buf)?, probe_number },
            5 => Message::ForwardedAck { origin: name(&mut buf)?, probe_number },
            6 => Message::Announce,
            7 => Message::Feed,
            8 => Message::Gossip,
            9 => Message::Broadcast,
            10 => Message::TurnUndead,
            11.. => return Err(Unfit),
        };
        Ok(Header { src, src_incarnation, dst, message })
    }

    fn encode_member(&mut self, member: &foca::Member<Name>, mut buf: impl BufMut) -> Result<(), Unfit> {
        if buf.remaining_mut() < MEMBER_BYTES {
            return Err(Unfit);
        }
        put_name(*member.id(), &mut buf);
        buf.put_u16(member.incarnation());
        buf.put_u8(match member.state() {
            State::Alive => 0,
            State::Suspect => 1,
            State::Down => 2,
        });
        Ok(())
    }

    fn decode_member(&mut self, mut buf: impl Buf) -> Result<foca::Member<Name>, Unfit> {
        let id = name(&mut buf)?;
        let incarnation = buf.try_get_u16().map_err(|_| Unfit)?;
        let state = match buf.try_get_u8().map_err(|_| Unfit)? {
            0 => State::Alive,
            1 => State::Suspect,
            2 => State::Down,
            3.. => return Err(Unfit),
        };
        Ok(foca::Member::new(id, incarnation, state))
    }
}

fn put_name(name: Name, buf: &mut impl BufMut) {
    buf.put_u64(name.node);
    buf.put_u8(name.life);
}

fn name(buf: &mut impl Buf) -> Result<Name, Unfit> {
    let node = buf.try_get_u64().map_err(|_| Unfit)?;
    Ok(Name { node, life: buf.try_get_u8().map_err(|_| Unfit)? })
}

/// Where the codec writes the kind, and what a ping is.
const KIND_AT: usize = 0;
const PING: u8 = 0;
/// Name, incarnation, state.
const MEMBER_BYTES: usize = 9 + 2 + 1;
