//! What membership costs when nothing happens, and when members describe themselves anew.
//!
//! Units: per member and second of virtual time.

use std::time::Duration;

use super::{Network, Protocol};

/// Traffic of an average member.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Load {
    /// Datagrams and stream messages sent per second.
    pub messages: f64,
    /// Their bytes per second, without the transport's.
    pub bytes: f64,
}

impl Load {
    /// Bytes per second on the wire: IPv4, UDP, QUIC's short header, packet number, tag and frame header take about 60
    /// bytes for each. QUIC's own acknowledgements are not counted.
    #[must_use]
    pub fn wire_bytes(self) -> f64 {
        self.bytes + self.messages * WIRE_OVERHEAD
    }
}

/// Lets a network run and returns what an average member sent.
pub fn measure<P: Protocol>(network: &mut Network<P>, time: Duration) -> Load {
    network.take_traffic();
    network.run_for(time);
    let traffic = network.take_traffic();
    let per = |total: u64| total as f64 / traffic.len() as f64 / time.as_secs_f64();
    Load {
        messages: per(traffic.iter().map(|t| t.packets + t.messages).sum()),
        bytes: per(traffic.iter().map(|t| t.packet_bytes + t.message_bytes).sum()),
    }
}

const WIRE_OVERHEAD: f64 = 60.0;
