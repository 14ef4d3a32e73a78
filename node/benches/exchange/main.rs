//! The exchange bench: what it costs to find and to mend what differs between two nodes.
//!
//! Shape: two stores with real engines in temporary directories, each with the repair room and its server, tied to one another
//! without a network. Messages pass through the codec, so their bytes are counted as they would travel. The rates are
//! not bounded. Printed as a markdown table; nothing is asserted on time.
//!
//!     cargo bench -p shoal-node --all-features --bench exchange                       1M keys
//!     cargo bench -p shoal-node --all-features --bench exchange -- --keys 100000     fewer

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "a bench has a clock and files")]
#![allow(clippy::wildcard_enum_match_arm, reason = "what is not expected ends the bench")]

mod peer;

use std::collections::BTreeMap;
use std::error::Error;
use std::time::Instant as Clock;

use bytes::Bytes;
use clap::Parser;
use shoal_node::storage::RowKey;
use shoal_protocol::address::Place;
use shoal_protocol::causality::Dot;
use shoal_protocol::id::{Actor, Class, KeyspaceId};
use shoal_protocol::object::{Mint, Object, Operation, Value, bind};
use shoal_protocol::time::Hlc;

use peer::Pair;

/// Whatever goes wrong ends the bench.
type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// Measures exchanges.
#[derive(Clone, Debug, Parser)]
struct Options {
    /// Keys that both nodes hold.
    #[arg(long, default_value_t = 1_000_000)]
    keys: u32,
    /// Bytes of a value.
    #[arg(long, default_value_t = 100)]
    value_bytes: usize,
    /// How many keys differ, one run after the other.
    #[arg(long, value_delimiter = ',', default_values_t = [0, 10, 100, 1_000, 100_000])]
    differences: Vec<u32>,
    /// What cargo adds.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> Outcome<()> {
    let options = Options::parse();
    let mut pair = Pair::open()?;
    for rows in rows(&options)?.chunks(8_000) {
        pair.load(rows)?;
    }
    pair.exchange()?;
    println!("{} keys of {} B\n", options.keys, options.value_bytes);
    println!("| differing keys | bytes both ways | of these objects | messages | time, ms | CPU, ms |");
    println!("|---:|---:|---:|---:|---:|---:|");
    for (run, differences) in (1..).zip(&options.differences) {
        pair.overwrite(&changes(&options, *differences, run)?)?;
        let (begun, cpu_before) = (Clock::now(), cpu_ms()?);
        let traffic = pair.exchange()?;
        println!(
            "| {differences} | {} | {} | {} | {} | {} |",
            traffic.bytes,
            traffic.objects_bytes,
            traffic.messages,
            begun.elapsed().as_millis(),
            cpu_ms()? - cpu_before,
        );
        pair.check()?;
    }
    Ok(())
}

/// All keys with their first value, in row order.
fn rows(options: &Options) -> Outcome<Vec<(RowKey, Bytes)>> {
    let mut rows = BTreeMap::new();
    for number in 0..options.keys {
        rows.insert(key(number), object(options, number, 1)?.encode());
    }
    Ok(rows.into_iter().collect())
}

/// New values for so many keys, spread over all.
fn changes(options: &Options, count: u32, run: u64) -> Outcome<Vec<(RowKey, Object)>> {
    let step = options.keys / count.clamp(1, options.keys);
    (0..count.min(options.keys)).map(|index| Ok((key(index * step), object(options, index * step, 1 + run)?))).collect()
}

fn object(options: &Options, number: u32, n: u64) -> Outcome<Object> {
    let actor = Actor::incarnation(u64::from(number) + 1);
    let mut text = format!("\"{number}-{n}-");
    text.extend(std::iter::repeat_n('x', options.value_bytes.saturating_sub(text.len() + 1)));
    text.push('"');
    let mint = Mint { dot: Dot { actor, n }, prev: n - 1, hlc: Hlc::default(), total: None };
    // Instead of what was there, which is not looked up: the dots of before are covered.
    let operation = Operation::Replace { value: Value::json(text) };
    let observed = (1..n).fold(Object::default(), |mut observed, n| {
        observed.merge_into(&Object::of_context(context(actor, n)));
        observed
    });
    Ok(bind(&operation, &mint, &observed)?)
}

fn context(actor: Actor, n: u64) -> shoal_protocol::causality::Context {
    let mut context = shoal_protocol::causality::Context::default();
    context.insert(Dot { actor, n });
    context
}

fn key(number: u32) -> RowKey {
    let place = Place {
        keyspace: KeyspaceId(1),
        collection: Bytes::new(),
        key: format!("key-{number:08}").into_bytes().into(),
    };
    RowKey::new(place.partition(CLASS), &place)
}

/// User and system time of this process so far.
fn cpu_ms() -> Outcome<u64> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<&str> = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
    Ok((ticks(11) + ticks(12)) * 10)
}

const CLASS: Class = Class { n: 2, r: 0, w: 0 };
