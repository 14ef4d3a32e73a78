//! Incoming connections: the handshake, then the conversation its ALPN names.
//!
//! Invariant: one task per connection, one stream per connection; a connection that does not come to its hello within
//! `HANDSHAKE_WITHIN` + `HELLO_WITHIN` is gone.

use std::time::Duration;

use quinn::crypto::rustls::HandshakeData;
use quinn::{Connection, Endpoint, Incoming, RecvStream, SendStream, VarInt};
use shoal_protocol::frame::{CLOSE_DONE, CLOSE_SLOW_READER};
use tokio::task::spawn_local;
use tokio::time::timeout;
use tracing::{debug, info};

use super::endpoint;
use super::event::Door;
use super::gossip::{Opened, gossip};
use super::links::{GOODBYE_WITHIN, HELLO_WITHIN, serve_client, serve_peer};
use super::outbox::LinkEnd;
use super::tls::{ALPN_CLIENT, ALPN_GOSSIP, ALPN_PEER, PeerIdentity};

/// Accepts until the endpoint closes.
pub(super) async fn accept(endpoint: Endpoint, door: Door) {
    while let Some(incoming) = endpoint.accept().await {
        if let Some(incoming) = endpoint::screen(&endpoint, incoming) {
            spawn_local(serve(incoming, door.clone()));
        }
    }
}

async fn serve(incoming: Incoming, door: Door) {
    let from = incoming.remote_address();
    let connection = match timeout(HANDSHAKE_WITHIN, incoming.into_future()).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => return debug!(%from, %error, "handshake failed"),
        Err(_) => return debug!(%from, "handshake not finished in time"),
    };
    let Ok(Ok((send, receive))) = timeout(HELLO_WITHIN, connection.accept_bi()).await else {
        return debug!(%from, "no stream opened");
    };
    let end = converse(&connection, send, receive, &door).await;
    debug!(%from, %end, "connection ended");
    close(&connection, &end).await;
}

async fn converse(connection: &Connection, send: SendStream, receive: RecvStream, door: &Door) -> LinkEnd {
    let handshake = connection.handshake_data().and_then(|any| any.downcast::<HandshakeData>().ok());
    let alpn = handshake.and_then(|data| data.protocol).unwrap_or_default();
    if alpn == ALPN_PEER {
        serve_peer(receive, send, PeerIdentity::of(connection), door).await
    } else if alpn == ALPN_CLIENT {
        serve_client(receive, send, door).await
    } else if alpn == ALPN_GOSSIP {
        gossip(connection, (send, receive), Opened::There, door).await.1
    } else {
        LinkEnd::Dropped
    }
}

/// Closes a connection whose conversation has ended. After a goodbye the other end gets the time to read it and close first.
pub(super) async fn close(connection: &Connection, end: &LinkEnd) {
    if matches!(end, LinkEnd::GoodbyeSaid) {
        let _ = timeout(GOODBYE_WITHIN, connection.closed()).await;
    }
    match end {
        LinkEnd::SlowReader { .. } | LinkEnd::StalledReader { .. } => {
            info!(to = %connection.remote_address(), %end, "connection ended");
            connection.close(SLOW_READER, end.to_string().as_bytes());
        }
        LinkEnd::Closed
        | LinkEnd::Failed(_)
        | LinkEnd::Refused(_)
        | LinkEnd::Dismissed(_)
        | LinkEnd::GoodbyeSaid
        | LinkEnd::Dropped
        | LinkEnd::Untrusted(_)
        | LinkEnd::Stopping => connection.close(CLOSED, b""),
    }
}

pub(super) const CLOSED: VarInt = VarInt::from_u32(CLOSE_DONE);
const SLOW_READER: VarInt = VarInt::from_u32(CLOSE_SLOW_READER);
/// From the first packet to the end of the handshake; several retransmissions on a slow path.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(5);
