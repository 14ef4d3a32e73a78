//! The limits of a node: what they are, and how they are set.
//!
//! Shape: `ServerLimits` is what holds; `LimitSettings` is one layer of settings (the table `[limits]` of a file, the
//! environment, or flags), every limit under one name: `limits.requests_max`, `SHOAL_REQUESTS_MAX`, `--requests-max`.
//! Units are in the names: bytes, milliseconds, or counts. Source: DESIGN §4 (objects), §6 (overload), §7 (memory).
//! Invariant: a limit is at least 1, and never so large that what it admits would not fit a frame or the codec.

use serde::{Deserialize, Serialize};
use shoal_protocol::frame::{CLIENT_FRAME_BYTES_MAX, PEER_FRAME_BYTES_MAX};
use shoal_protocol::object::DEPTH_MAX;

use super::config::{ConfigError, parse};
use crate::node::NodeLimits;

/// Everything that bounds a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServerLimits {
    /// Each connection.
    pub link: LinkLimits,
    /// All connections together.
    pub load: LoadLimits,
    /// The node behind them.
    pub node: NodeLimits,
    /// Its files.
    pub disk: DiskLimits,
}

/// Bounds of one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkLimits {
    /// Requests without an answer; more are answered `overloaded`.
    pub in_flight_count_max: usize,
    /// Their bytes.
    pub in_flight_bytes_max: usize,
    /// Bytes waiting for a slow reader; beyond, its connection ends.
    pub outbox_bytes_max: usize,
    /// Milliseconds for which a reader may take nothing of what waits for it; then its connection ends.
    pub stalled_ms_max: usize,
}

impl Default for LinkLimits {
    /// Guesses, to be set by load tests: a pipelining client at full speed has a few hundred requests under way, and the
    /// largest answers (64 MiB between nodes) must fit. A reader that takes nothing for half a minute has stopped.
    fn default() -> Self {
        Self {
            in_flight_count_max: 4_096,
            in_flight_bytes_max: 32 << 20,
            outbox_bytes_max: 64 << 20,
            stalled_ms_max: 30_000,
        }
    }
}

/// Bounds of all connections of a node together. How many requests there may be is bounded behind them (`NodeLimits`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoadLimits {
    /// Bytes of clients' requests without an answer; beyond, a further one is answered `overloaded`.
    pub request_bytes_max: usize,
    /// Bytes of other nodes' requests without an answer; beyond, a further one is refused as overloaded.
    pub replica_request_bytes_max: usize,
    /// Bytes waiting for slow readers; beyond, clients' further requests are answered `overloaded`.
    pub outbox_bytes_max: usize,
}

impl Default for LoadLimits {
    /// Guesses: together a gigabyte at the worst, and in ordinary times a few megabytes. Other nodes get what clients get,
    /// so that a node full of clients still does its share of what was begun elsewhere.
    fn default() -> Self {
        Self { request_bytes_max: 256 << 20, replica_request_bytes_max: 256 << 20, outbox_bytes_max: 512 << 20 }
    }
}

/// Bounds of a node's files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskLimits {
    /// Memory for pages of the rows' file.
    pub page_cache_bytes: usize,
    /// Length of one file of the log; rounded up to whole blocks.
    pub log_segment_bytes: usize,
    /// Room on the disk below which clients' writes are refused as `disk_full`; an eighth of it is taken by the ballast.
    pub reserve_bytes: usize,
}

impl Default for DiskLimits {
    /// Guesses: a segment takes some hundred thousand small writes; the reserve lets a flush and a repair finish.
    fn default() -> Self {
        Self { page_cache_bytes: 64 << 20, log_segment_bytes: 32 << 20, reserve_bytes: 256 << 20 }
    }
}

/// Declares the limits that can be set: name, the field that holds it, and the largest value it may have.
macro_rules! limits {
    ($($(#[doc = $doc:literal])+ $name:ident: $($field:ident).+, $unit:literal, $max:expr;)+) => {
        /// One layer of limits: what it does not name comes from the next layer.
        #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
        #[cfg_attr(feature = "cli", derive(clap::Args), command(next_help_heading = "Limits (`shoal config show` prints them)"))]
        #[serde(default, deny_unknown_fields)]
        pub struct LimitSettings {
            $(
                $(#[doc = $doc])+
                #[cfg_attr(feature = "cli", arg(long, value_name = $unit))]
                #[serde(skip_serializing_if = "Option::is_none")]
                pub $name: Option<usize>,
            )+
        }

        impl LimitSettings {
            /// Takes the environment variable `SHOAL_<NAME>` if it is one of these.
            pub(super) fn read_variable(&mut self, variable: &str, value: &str) -> Result<(), ConfigError> {
                let name = variable.strip_prefix("SHOAL_").unwrap_or_default();
                $(
                    if name.eq_ignore_ascii_case(stringify!($name)) {
                        self.$name = Some(parse(variable, value)?);
                    }
                )+
                Ok(())
            }

            /// These settings, and where they are silent those of `lower`.
            #[must_use]
            pub(super) fn over(self, lower: Self) -> Self {
                Self { $($name: self.$name.or(lower.$name),)+ }
            }

            /// Checks the settings and fills in defaults.
            pub(super) fn resolve(self) -> ServerLimits {
                let mut limits = ServerLimits::default();
                $(limits.$($field).+ = self.$name.unwrap_or(limits.$($field).+);)+
                limits
            }

            /// The settings that `limits` come from.
            #[must_use]
            pub(super) fn of(limits: &ServerLimits) -> Self {
                Self { $($name: Some(limits.$($field).+),)+ }
            }
        }

        impl ServerLimits {
            /// That every limit is within its own bounds.
            pub(super) fn check(&self) -> Result<(), ConfigError> {
                $(
                    if !(1..=$max).contains(&self.$($field).+) {
                        return Err(ConfigError::BadLimit { setting: stringify!($name), max: $max });
                    }
                )+
                Ok(())
            }
        }
    };
}

limits! {
    /// Clients' requests under way, batch items counted one by one; beyond, `overloaded`.
    requests_max: node.requests_max, "COUNT", usize::MAX;
    /// Bytes of clients' requests under way; beyond, `overloaded`.
    request_bytes_max: load.request_bytes_max, "BYTES", usize::MAX;
    /// Other nodes' requests waiting for this node's replica.
    replica_requests_max: node.replica_requests_max, "COUNT", usize::MAX;
    /// Bytes of other nodes' requests under way.
    replica_request_bytes_max: load.replica_request_bytes_max, "BYTES", usize::MAX;
    /// Bytes waiting for slow readers; beyond, clients' further requests are `overloaded`.
    outbox_bytes_max: load.outbox_bytes_max, "BYTES", usize::MAX;
    /// Requests under way on one connection; beyond, `overloaded`.
    link_requests_max: link.in_flight_count_max, "COUNT", usize::MAX;
    /// Bytes of requests under way on one connection; beyond, `overloaded`.
    link_request_bytes_max: link.in_flight_bytes_max, "BYTES", usize::MAX;
    /// Bytes waiting for one slow reader; beyond, its connection ends.
    link_outbox_bytes_max: link.outbox_bytes_max, "BYTES", usize::MAX;
    /// How long a reader may take nothing of what waits for it before its connection ends.
    link_stalled_ms_max: link.stalled_ms_max, "MS", DAY_MS;
    /// Memory for decoded objects: what is not yet in the rows' file, and the cache.
    memory_bytes_max: node.storage.bytes, "BYTES", usize::MAX;
    /// Bytes of the log that are not in the rows' file yet; at half of it they are brought there, up to it writers are slowed.
    log_bytes_max: node.storage.log_bytes, "BYTES", usize::MAX;
    /// Bytes of writes kept for one node that cannot be reached; beyond, this node stands in for it no more.
    hint_bytes_per_node_max: node.handoff.hint_bytes_per_target_max, "BYTES", usize::MAX;
    /// Bytes of writes kept for all nodes that cannot be reached.
    hint_bytes_max: node.handoff.hint_bytes_max, "BYTES", usize::MAX;
    /// Bytes per second that are given back to nodes that missed them.
    handoff_bytes_per_s: node.handoff.bytes_per_s, "BYTES", usize::MAX;
    /// Bytes of one file of the log.
    log_segment_bytes: disk.log_segment_bytes, "BYTES", 1 << 40;
    /// Memory for pages of the rows' file.
    page_cache_bytes_max: disk.page_cache_bytes, "BYTES", usize::MAX;
    /// Room on the disk below which clients' writes are refused as `disk_full`.
    disk_reserve_bytes: disk.reserve_bytes, "BYTES", usize::MAX;
    /// Bytes of one value, set element or field name.
    value_bytes_max: node.objects.value_bytes_max, "BYTES", CLIENT_FRAME_BYTES_MAX as usize / 2;
    /// Siblings of one register.
    siblings_max: node.objects.siblings_max, "COUNT", usize::MAX;
    /// Maps inside one another.
    map_depth_max: node.objects.map_depth_max, "COUNT", DEPTH_MAX;
    /// Bytes of one object.
    object_bytes_max: node.objects.object_bytes_max, "BYTES", PEER_FRAME_BYTES_MAX as usize / 2;
    /// Sessions that have written one object.
    session_actors_max: node.objects.session_actors_max, "COUNT", usize::MAX;
    /// Everything is compared with every other holder so often.
    exchange_period_ms: node.repair.exchange_period_ms, "MS", 7 * DAY_MS;
    /// Every row is verified so often.
    scrub_period_s: node.repair.scrub_period_s, "S", 1 << 30;
    /// Bytes per second that comparisons and transfers may move.
    repair_bytes_per_s: node.repair.bytes_per_s, "BYTES", 1 << 40;
    /// Objects per second that comparisons and transfers may move.
    repair_objects_per_s: node.repair.objects_per_s, "COUNT", 1 << 40;
    /// Earlier operations of one actor that may be missing from an object.
    gaps_max: node.objects.gaps_max, "COUNT", usize::MAX;
}

/// Nobody waits longer for a reader, nor is compared less often than once in seven of these.
const DAY_MS: usize = 24 * 60 * 60 * 1_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_hides_what_lies_below_and_the_rest_is_the_default() {
        let upper = LimitSettings { requests_max: Some(1), ..LimitSettings::default() };
        let lower = LimitSettings { requests_max: Some(2), siblings_max: Some(3), ..LimitSettings::default() };
        let limits = upper.over(lower).resolve();
        let mut expected = ServerLimits::default();
        (expected.node.requests_max, expected.node.objects.siblings_max) = (1, 3);
        assert_eq!(limits, expected);
        assert_eq!(LimitSettings::of(&limits).resolve(), limits);
    }

    #[test]
    fn the_defaults_are_within_bounds_and_nothing_may_be_zero_or_beyond_the_codec() {
        assert!(ServerLimits::default().check().is_ok());
        for (name, value, is_good) in
            [("requests_max", 0, false), ("map_depth_max", DEPTH_MAX, true), ("map_depth_max", DEPTH_MAX + 1, false)]
        {
            let mut settings = LimitSettings::default();
            settings.read_variable(&format!("SHOAL_{}", name.to_uppercase()), &value.to_string()).unwrap();
            let checked = settings.resolve().check();
            assert_eq!(checked.is_ok(), is_good, "{name} = {value}: {checked:?}");
        }
    }

    #[test]
    fn a_variable_that_is_no_number_is_named() {
        let mut settings = LimitSettings::default();
        let refused = settings.read_variable("SHOAL_GAPS_MAX", "many").unwrap_err();
        assert!(refused.to_string().contains("SHOAL_GAPS_MAX"), "{refused}");
        settings.read_variable("SHOAL_SOMETHING_ELSE", "x").unwrap();
        assert_eq!(settings, LimitSettings::default());
    }
}
