//! The tables: medians over the rounds, and each goal with what was measured.
//!
//! Units: CPU of the whole process per operation, less what making keys and deltas takes by itself; bytes handed to write
//! calls; latencies in us as the loop saw them. `ROWS` columns are of the whole run of one system, because what one turn
//! puts another may flush. Ratios are formed inside a round, medians over rounds.

use std::time::Duration;

use crate::closed_loop::Measured;
use crate::lasting::{Lasting, Opening, Restart};
use crate::rounds::{Rounds, Totals, Who, per_second};

pub(crate) fn print_rounds(rounds: &Rounds) {
    println!(
        "\nputs: medians over rounds (making a key and a delta: {:.1} us CPU and {} allocations, left out)",
        rounds.key_making.cpu_ns as f64 / 1e3,
        rounds.key_making.allocations
    );
    let head =
        ["SYSTEM", "WRITERS", "OPS/S", "CPU us", "OF IT ROWS", "ALLOCS", "LOG B", "ROWS B", "P50 us", "P99", "LONGEST"];
    let mut lines = vec![head.map(str::to_owned).to_vec()];
    for ((who, writers), turns) in &rounds.puts {
        let totals = rounds.totals.get(who).copied().unwrap_or_default();
        lines.push(puts_line(rounds, (*who, *writers), turns, totals));
    }
    print_table(&lines);
    println!("\nbytes written per put over the whole run, and what flushes handed to redb (rows + digests + feed)");
    let head = ["SYSTEM", "PUTS", "LOG B", "ROWS FILE B", "OF IT ROWS", "DIGESTS", "FEED", "WRITTEN / KEY+VALUE"];
    let mut lines = vec![head.map(str::to_owned).to_vec()];
    for (who, totals) in &rounds.totals {
        let per_put = |bytes: u64| format!("{:.0}", bytes as f64 / totals.puts.max(1) as f64);
        lines.push(vec![
            who.name().into(),
            totals.puts.to_string(),
            per_put(totals.written.log),
            per_put(totals.written.databases),
            per_put(totals.flushed.rows_bytes),
            per_put(totals.flushed.digests_bytes),
            per_put(totals.flushed.feed_bytes),
            format!("{:.1}", totals.written.all() as f64 / (totals.puts.max(1) * rounds.pair_bytes) as f64),
        ]);
    }
    print_table(&lines);
    println!("\nrandom reads, {} readers: medians over rounds", rounds.readers);
    let mut lines = vec![["SYSTEM", "OPS/S", "CPU us", "FROM MEMORY"].map(str::to_owned).to_vec()];
    for (who, turns) in &rounds.reads {
        let of = |figure: &dyn Fn(&crate::shoal::Reads) -> f64| median(turns.iter().map(figure));
        lines.push(vec![
            who.name().into(),
            format!("{:.0}", of(&|reads| per_second(reads.count, reads.time))),
            format!("{:.2}", of(&|reads| reads.usage.cpu_ns as f64 / 1e3 / reads.count.max(1) as f64)),
            format!("{:.0} %", of(&|reads| 100.0 * reads.hits as f64 / reads.count.max(1) as f64)),
        ]);
    }
    print_table(&lines);
}

fn puts_line(rounds: &Rounds, (who, writers): (Who, usize), turns: &[Measured], totals: Totals) -> Vec<String> {
    let of = |figure: &dyn Fn(&Measured) -> f64| median(turns.iter().map(figure));
    // redb alone has no other files; Shoal's rows belong to the whole run.
    let is_shoal = matches!(who, Who::Shoal | Who::ShoalSmall);
    let rows_cpu = if is_shoal { totals.rows_cpu_ns as f64 / totals.puts.max(1) as f64 } else { 0.0 };
    let own_cpu = of(&|turn| (turn.usage.cpu_ns - turn.usage.rows_cpu_ns) as f64 / turn.count.max(1) as f64);
    let cpu = own_cpu + rows_cpu - rounds.key_making.cpu_ns as f64;
    let rows_bytes = if is_shoal {
        totals.written.databases as f64 / totals.puts.max(1) as f64
    } else {
        of(&|turn| turn.written.databases as f64 / turn.count.max(1) as f64)
    };
    let allocations = of(&|turn| turn.usage.allocations as f64 / turn.count.max(1) as f64);
    let at = |quantile: f64| format!("{:.0}", of(&|turn| turn.latency.value_at_quantile(quantile) as f64));
    vec![
        who.name().into(),
        writers.to_string(),
        format!("{:.0}", of(&|turn| per_second(turn.count, turn.time))),
        format!("{:.1}", cpu / 1e3),
        format!("{:.1}", rows_cpu / 1e3),
        format!("{:.1}", allocations - rounds.key_making.allocations as f64),
        format!("{:.0}", of(&|turn| turn.written.log as f64 / turn.count.max(1) as f64)),
        format!("{rows_bytes:.0}"),
        at(0.5),
        at(0.99),
        longest(turns).to_string(),
    ]
}

pub(crate) fn print_lasting(lasting: &Lasting) {
    let Lasting { keys, load, overwrites, restart, memory, .. } = lasting;
    let live = live_bytes(lasting);
    println!("\nin the long run, {keys} keys");
    let per_key = |bytes: u64| bytes as f64 / *keys as f64;
    println!(
        "load in row order past the log: {:.0} keys/s, {:.0} B written per key, file {:.2} of live data",
        load.sorted_per_second,
        per_key(load.sorted_written.all()),
        load.sorted_file_bytes as f64 / live
    );
    println!(
        "load by random puts until in the rows: {:.0} keys/s, {:.0} B written per key, file {:.2} of live data",
        load.random_per_second,
        per_key(load.random_written.all()),
        load.random_file_bytes as f64 / live
    );
    let puts = overwrites.measured.count;
    let per_put = |bytes: u64| bytes as f64 / puts.max(1) as f64;
    println!(
        "{} overwrites of every key: {:.0}/s, per put {:.0} B log + {:.0} B rows file (handed to redb: rows {:.0}, digests {:.0}, feed {:.0}), file {:.2} of live data ({:.2} without holes), longest put {} us",
        overwrites.times,
        per_second(puts, overwrites.measured.time),
        per_put(overwrites.written.log),
        per_put(overwrites.written.databases),
        per_put(overwrites.flushed.rows_bytes),
        per_put(overwrites.flushed.digests_bytes),
        per_put(overwrites.flushed.feed_bytes),
        overwrites.file_bytes as f64 / live,
        overwrites.allocated_bytes as f64 / live,
        overwrites.measured.latency.max()
    );
    let opening = |Opening { open, first_put, cpu }: &Opening| {
        let [open, first_put, cpu] = [open, first_put, cpu].map(Duration::as_secs_f64);
        format!("open in {open:.3} s ({cpu:.3} s of CPU), first put durable at {first_put:.3} s")
    };
    println!("after SIGKILL with an empty log: {}", opening(&restart.empty));
    println!("after SIGKILL with {} records in the log: {}", restart.log_records, opening(&restart.full));
    println!(
        "resident with {} MiB of budget and pages: {} MiB, with twice the keys {} MiB",
        memory.memory.bytes() >> 20,
        memory.before_bytes >> 20,
        memory.after_bytes >> 20
    );
}

pub(crate) fn print_goals(rounds: Option<&Rounds>, lasting: Option<&Lasting>) {
    println!("\ngoals");
    let mut lines = vec![["GOAL", "AT", "MEASURED", ""].map(str::to_owned).to_vec()];
    let mut goal = |what: &str, at: String, measured: String, is_met: bool| {
        lines.push(vec![what.into(), at, measured, if is_met { "met" } else { "missed" }.into()]);
    };
    if let Some(rounds) = rounds {
        if let Some(ratio) = ratio(rounds, (Who::Shoal, Who::Redb), 64) {
            goal("puts, 64 writers, over redb alone", ">= 5".into(), format!("{ratio:.2}"), ratio >= 5.0);
        }
        for (who, writers) in [(Who::Shoal, 64), (Who::Shoal, 256), (Who::ShoalSmall, 64), (Who::ShoalSmall, 256)] {
            if let Some(ratio) = ratio(rounds, (who, Who::RawLog), writers) {
                let what = format!("puts, {writers} writers, over the log alone: {}", who.name());
                goal(&what, ">= 0.4".into(), format!("{ratio:.2}"), ratio >= 0.4);
            }
        }
        for who in [Who::Shoal, Who::ShoalSmall] {
            let longest_of =
                |who| rounds.puts.iter().filter(|((of, _), _)| *of == who).map(|(_, turns)| longest(turns)).max();
            if let (Some(ours), Some(raw)) = (longest_of(who), longest_of(Who::RawLog)) {
                let ratio = ours as f64 / raw.max(1) as f64;
                let measured = format!("{ratio:.1} ({} ms of {} ms)", ours / 1000, raw / 1000);
                goal(
                    &format!("longest put over the log's longest: {}", who.name()),
                    "<= 20".into(),
                    measured,
                    ratio <= 20.0,
                );
            }
        }
    }
    if let Some(lasting) = lasting {
        let overwrites = &lasting.overwrites;
        let amplification = overwrites.written.all() as f64 / (overwrites.measured.count * lasting.pair_bytes) as f64;
        goal("write amplification of overwrites", "<= 6".into(), format!("{amplification:.1}"), amplification <= 6.0);
        let file = overwrites.file_bytes as f64 / live_bytes(lasting);
        goal("rows file over keys and values after them", "<= 2".into(), format!("{file:.2}"), file <= 2.0);
        let Restart { log_records, full, empty } = &lasting.restart;
        let limit = 1.0 + *log_records as f64 / 300_000.0;
        let took = full.first_put.as_secs_f64();
        let replay = full.open.saturating_sub(empty.open).as_secs_f64();
        let measured = format!("{took:.2} s, {:.0} records/s", *log_records as f64 / replay.max(1e-6));
        goal("start after SIGKILL until a put is durable", format!("<= {limit:.2} s"), measured, took <= limit);
        let ratio = lasting.load.sorted_per_second / lasting.load.random_per_second;
        goal("sorted load over random load", ">= 5".into(), format!("{ratio:.1}"), ratio >= 5.0);
        let grown = lasting.memory.after_bytes as f64 - lasting.memory.before_bytes as f64;
        let per_million = grown / lasting.keys as f64;
        goal("resident MB per 1M more keys", "<= 48".into(), format!("{per_million:.0}"), per_million <= 48.0);
    }
    print_table(&lines);
}

/// Keys and values, as a user counts.
fn live_bytes(lasting: &Lasting) -> f64 {
    lasting.keys as f64 * lasting.pair_bytes as f64
}

/// The median of the ratios inside each round.
fn ratio(rounds: &Rounds, (of, over): (Who, Who), writers: usize) -> Option<f64> {
    let rate = |turn: &Measured| per_second(turn.count, turn.time);
    let (of, over) = (rounds.puts.get(&(of, writers))?, rounds.puts.get(&(over, writers))?);
    Some(median(of.iter().zip(over).map(|(of, over)| rate(of) / rate(over))))
}

fn longest(turns: &[Measured]) -> u64 {
    turns.iter().map(|turn| turn.latency.max()).max().unwrap_or(0)
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        count if count.is_multiple_of(2) => f64::midpoint(values[count / 2 - 1], values[count / 2]),
        count => values[count / 2],
    }
}

/// Columns two spaces apart.
fn print_table(lines: &[Vec<String>]) {
    let columns = lines.first().map_or(0, Vec::len);
    let widths: Vec<_> = (0..columns).map(|at| lines.iter().map(|line| line[at].len()).max().unwrap_or(0)).collect();
    for line in lines {
        let cells: Vec<_> = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        println!("{}", cells.join("  ").trim_end());
    }
}
