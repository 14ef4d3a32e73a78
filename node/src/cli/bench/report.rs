//! The results of `shoal bench`.

use serde_json::{Value as Json, json};

use super::{Args, Kind, Measured};
use crate::cli::failure::Failure;
use crate::cli::output::{Output, note};

pub(super) fn print(args: &Args, pids: &[u32], results: &[(Kind, &Measured)], out: &mut Output) -> Result<(), Failure> {
    for (kind, measured) in results.iter().filter(|(_, measured)| measured.errors > 0) {
        let last = measured.last_error.as_deref().unwrap_or_default();
        note(format_args!("note: {} {}s failed, the last one with {last}", measured.errors, kind.name()));
    }
    if out.is_json() {
        return results.iter().try_for_each(|(kind, measured)| out.document(&document(args, pids, *kind, measured)));
    }
    let Args { clients, connections, keys, value_bytes, rounds, .. } = args;
    out.line(format_args!(
        "{rounds} rounds, {clients} clients over {connections} connection(s) to each node, {keys} keys, {value_bytes} B values",
    ))?;
    let head = [
        "OP",
        "COUNT",
        "OPS/S",
        "P50 us",
        "P90",
        "P99",
        "P99.9",
        "MAX",
        "CLIENT CPU us",
        "NODES CPU us",
        "WRITTEN B",
        "ALLOCS",
        "LOOPBACK B",
    ];
    let rows = results.iter().map(|(kind, measured)| {
        let at = |quantile| measured.latency.value_at_quantile(quantile).to_string();
        let nodes = |value: f64| if pids.is_empty() { "-".to_owned() } else { format!("{value:.1}") };
        let usage = &measured.usage;
        vec![
            kind.name().to_owned(),
            measured.count().to_string(),
            format!("{:.0}", per_second(measured)),
            at(0.5),
            at(0.9),
            at(0.99),
            at(0.999),
            measured.latency.max().to_string(),
            format!("{:.1}", per_operation(usage.client_ns, measured) / 1e3),
            nodes(per_operation(usage.nodes_ns, measured) / 1e3),
            nodes(per_operation(usage.nodes_written, measured)),
            nodes(per_operation(usage.nodes_allocations, measured)),
            format!("{:.0}", per_operation(usage.loopback, measured)),
        ]
    });
    out.table(&std::iter::once(head.map(str::to_owned).to_vec()).chain(rows).collect::<Vec<_>>())
}

fn document(args: &Args, pids: &[u32], kind: Kind, measured: &Measured) -> Json {
    let at = |quantile| measured.latency.value_at_quantile(quantile);
    let usage = &measured.usage;
    let nodes = |value: f64| (!pids.is_empty()).then_some(value);
    json!({
        "op": kind.name(), "clients": args.clients, "connections": args.connections, "keys": args.keys,
        "value_bytes": args.value_bytes, "count": measured.count(), "errors": measured.errors,
        "seconds": measured.time.as_secs_f64(), "ops_per_s": per_second(measured), "rounds_ops_per_s": measured.rounds,
        "latency_us": {
            "p50": at(0.5), "p90": at(0.9), "p99": at(0.99), "p999": at(0.999), "max": measured.latency.max(),
            "mean": measured.latency.mean(),
        },
        "client_cpu_us_per_op": per_operation(usage.client_ns, measured) / 1e3,
        "nodes_cpu_us_per_op": nodes(per_operation(usage.nodes_ns, measured) / 1e3),
        "nodes_written_bytes_per_op": nodes(per_operation(usage.nodes_written, measured)),
        "nodes_allocations_per_op": nodes(per_operation(usage.nodes_allocations, measured)),
        "loopback_bytes_per_op": per_operation(usage.loopback, measured),
    })
}

fn per_second(measured: &Measured) -> f64 {
    measured.count() as f64 / measured.time.as_secs_f64()
}

fn per_operation(amount: u64, measured: &Measured) -> f64 {
    amount as f64 / measured.count().max(1) as f64
}
