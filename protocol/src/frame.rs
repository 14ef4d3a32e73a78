//! Frames: how messages share one long-lived stream.
//!
//! Shape: `u32 length | u8 kind | u64 request id | body`, integers big-endian; `length` counts what follows it (9 + body).
//! Frames of many requests interleave; the request id pairs an answer with its question. Source: DESIGN §10.
//! Limits: a frame longer than the reader's bound is an error before anything of it is buffered beyond the header.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::id::RequestId;

/// What a body is. The numbers are part of the protocol and never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum FrameKind {
    /// `ClientHello` or `PeerHello`, by the ALPN.
    Hello = 1,
    /// `Welcome` or `PeerHello`.
    Welcome = 2,
    /// `ClientCall` or `PeerCall`.
    Request = 3,
    /// `Result<ClientResponse, RequestError>` or `PeerResponse`.
    Response = 4,
    /// `RequestError`: the connection ends after it.
    Goodbye = 5,
    /// Bytes for the other end's gossip.
    Gossip = 6,
}

impl FrameKind {
    const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Hello),
            2 => Some(Self::Welcome),
            3 => Some(Self::Request),
            4 => Some(Self::Response),
            5 => Some(Self::Goodbye),
            6 => Some(Self::Gossip),
            _ => None,
        }
    }
}

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// What the body is.
    pub kind: FrameKind,
    /// Which request it belongs to; 0 for hello, welcome, goodbye and gossip.
    pub request: RequestId,
    /// The body: a slice of what was received.
    pub body: Bytes,
}

/// Why a byte stream is not a sequence of frames. The connection must end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// Longer than the reader allows.
    #[error("a frame of {bytes} bytes; the limit is {bytes_max}")]
    TooLong {
        /// Its length.
        bytes: u32,
        /// The limit.
        bytes_max: u32,
    },
    /// Too short to hold kind and request id.
    #[error("a frame of {bytes} bytes is shorter than its header")]
    TooShort {
        /// Its length.
        bytes: u32,
    },
    /// An unknown kind.
    #[error("frame kind {kind} is unknown")]
    UnknownKind {
        /// The number.
        kind: u8,
    },
}

/// Cuts a byte stream into frames.
#[derive(Debug)]
pub struct FrameReader {
    buffered: BytesMut,
    bytes_max: u32,
}

impl FrameReader {
    /// A reader that refuses frames longer than `bytes_max`.
    #[must_use]
    pub fn new(bytes_max: u32) -> Self {
        Self { buffered: BytesMut::new(), bytes_max }
    }

    /// Where received bytes go.
    pub fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffered
    }

    /// The next whole frame, if there is one.
    ///
    /// # Errors
    /// The stream is not a sequence of frames; it must be abandoned.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        let Some(header) = self.buffered.first_chunk::<4>() else { return Ok(None) };
        let bytes = u32::from_be_bytes(*header);
        if bytes > self.bytes_max {
            return Err(FrameError::TooLong { bytes, bytes_max: self.bytes_max });
        }
        if bytes < HEADER_BYTES {
            return Err(FrameError::TooShort { bytes });
        }
        let whole = 4 + bytes as usize;
        if self.buffered.len() < whole {
            self.buffered.reserve(whole - self.buffered.len());
            return Ok(None);
        }
        let mut frame = self.buffered.split_to(whole).freeze();
        frame.advance(4);
        let kind = frame.get_u8();
        let kind = FrameKind::from_number(kind).ok_or(FrameError::UnknownKind { kind })?;
        let request = RequestId(frame.get_u64());
        Ok(Some(Frame { kind, request, body: frame }))
    }
}

/// Appends one frame to `out`; `body` writes the body in place.
///
/// # Panics
/// When the body is 4 GiB or longer, which no message can be: every sender checks its own limits first.
pub fn write_frame(out: &mut BytesMut, kind: FrameKind, request: RequestId, body: impl FnOnce(&mut BytesMut)) {
    let start = out.len();
    out.put_u32(0);
    out.put_u8(kind as u8);
    out.put_u64(request.0);
    body(out);
    let bytes = u32::try_from(out.len() - start - 4).expect("a body shorter than 4 GiB");
    out[start..start + 4].copy_from_slice(&bytes.to_be_bytes());
}

const HEADER_BYTES: u32 = 9;

/// A connection is closed with this code when its conversation is over; reasons travel in the goodbye.
pub const CLOSE_DONE: u32 = 0;
/// A connection is closed with this code when the other end has not read what waits for it: no goodbye would reach it, so the
/// close says in its text what the limit was. Requests without an answer have an unknown outcome; dial again.
pub const CLOSE_SLOW_READER: u32 = 1;
/// Longest frame a node accepts from a client, bytes: an object at its limit and a half-full batch beside it.
pub const CLIENT_FRAME_BYTES_MAX: u32 = 16 << 20;
/// Longest frame between nodes, and from node to client, bytes: objects may overshoot their limit (DESIGN §4).
pub const PEER_FRAME_BYTES_MAX: u32 = 64 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(body: &[u8]) -> BytesMut {
        let mut out = BytesMut::new();
        write_frame(&mut out, FrameKind::Request, RequestId(7), |b| b.put_slice(body));
        out
    }

    #[test]
    fn frames_cut_anywhere_come_out_whole() {
        let mut bytes = frame(b"one");
        bytes.extend_from_slice(&frame(b""));
        let mut reader = FrameReader::new(100);
        let mut out = Vec::new();
        for byte in bytes {
            reader.buffer().put_u8(byte);
            while let Some(frame) = reader.next_frame().expect("frames") {
                out.push(frame);
            }
        }
        assert_eq!(out.len(), 2);
        assert_eq!((&out[0].body[..], out[0].request, out[1].body.len()), (&b"one"[..], RequestId(7), 0));
    }

    #[test]
    fn too_long_too_short_and_unknown_are_told_apart() {
        let read = |bytes: &[u8]| {
            let mut reader = FrameReader::new(100);
            reader.buffer().extend_from_slice(bytes);
            reader.next_frame()
        };
        assert_eq!(read(&[0, 0, 0, 101]), Err(FrameError::TooLong { bytes: 101, bytes_max: 100 }));
        assert_eq!(read(&[0, 0, 0, 8]), Err(FrameError::TooShort { bytes: 8 }));
        assert_eq!(read(&[0, 0, 0, 9, 77, 0, 0, 0, 0, 0, 0, 0, 0]), Err(FrameError::UnknownKind { kind: 77 }));
        assert_eq!(read(&[0, 0]), Ok(None));
    }
}
