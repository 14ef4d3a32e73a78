//! What stands in the databases, byte by byte: sealed values and rows.
//!
//! Shape: a sealed value = checksum (8 bytes: blake3 over kind, key length, key, body), then the body. Row body = version
//! (1), flags (1; bit 0: the row beneath was unreadable, this is not the whole object), lsn (8), digest (16), canonical
//! object. Integers big-endian.
//! Invariant: the checksum covers the key, so a value under another key is damage too. redb does not verify its checksums
//! when it reads (78 % of flipped bits came back as data, notes/reliability.md §3); this is what does.

use shoal_protocol::id::Lsn;
use shoal_protocol::object::Digest;

/// What a sealed value is, so that no kind is taken for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Row = 1,
    State = 3,
    Meta = 4,
    Digests = 5,
    Feed = 6,
    Counts = 7,
}

/// The parts of a body, one behind the other, with their checksum before them.
pub(super) fn seal(kind: Kind, key: &[u8], body: &[&[u8]]) -> Vec<u8> {
    let mut sealed = Vec::with_capacity(CHECKSUM_BYTES + body.iter().map(|part| part.len()).sum::<usize>());
    sealed.extend_from_slice(&[0; CHECKSUM_BYTES]);
    body.iter().for_each(|part| sealed.extend_from_slice(part));
    let sum = checksum(kind, key, &sealed[CHECKSUM_BYTES..]);
    sealed[..CHECKSUM_BYTES].copy_from_slice(&sum);
    sealed
}

/// The body of a sealed value; `None` if it is damaged.
pub(super) fn unseal<'a>(kind: Kind, key: &[u8], sealed: &'a [u8]) -> Option<&'a [u8]> {
    let (found, body) = sealed.split_at_checked(CHECKSUM_BYTES)?;
    (found == checksum(kind, key, body)).then_some(body)
}

/// A row's content, its object still encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Row<'a> {
    pub(super) lsn: Lsn,
    pub(super) digest: Digest,
    pub(super) object: &'a [u8],
    /// Flushed over an unreadable row.
    pub(super) partial: bool,
}

impl<'a> Row<'a> {
    pub(super) fn encode(&self, key: &[u8]) -> Vec<u8> {
        let (lsn, digest) = (self.lsn.0.to_be_bytes(), self.digest.0.to_be_bytes());
        seal(Kind::Row, key, &[&[ROW_VERSION, u8::from(self.partial)], &lsn, &digest, self.object])
    }

    /// `None` if the row is damaged.
    pub(super) fn decode(key: &[u8], value: &'a [u8]) -> Option<Self> {
        let (head, object) = unseal(Kind::Row, key, value)?.split_at_checked(ROW_HEAD_BYTES)?;
        let (&[version, flags], rest) = head.split_first_chunk::<2>()?;
        let (lsn, digest) = rest.split_first_chunk::<8>()?;
        (version == ROW_VERSION && flags <= 1).then_some(Self {
            lsn: Lsn(u64::from_be_bytes(*lsn)),
            digest: Digest(u128::from_be_bytes(*digest.first_chunk()?)),
            object,
            partial: flags == 1,
        })
    }
}

fn checksum(kind: Kind, key: &[u8], body: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&[kind as u8]);
    hasher.update(&(key.len() as u64).to_be_bytes());
    hasher.update(key);
    hasher.update(body);
    let mut sum = [0; CHECKSUM_BYTES];
    sum.copy_from_slice(&hasher.finalize().as_bytes()[..CHECKSUM_BYTES]);
    sum
}

const CHECKSUM_BYTES: usize = 8;
const ROW_VERSION: u8 = 1;
const ROW_HEAD_BYTES: usize = 2 + 8 + 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_with_any_bit_flipped_is_damaged_and_so_is_one_under_another_key() {
        let row = Row { lsn: Lsn(5), digest: Digest(3), object: b"object", partial: false };
        let sealed = row.encode(b"key");
        assert_eq!(Row::decode(b"key", &sealed), Some(row));
        assert_eq!(Row::decode(b"kez", &sealed), None);
        assert_eq!(Row::decode(b"key", &sealed[..sealed.len() - 1]), None);
        for bit in 0..sealed.len() * 8 {
            let mut flipped = sealed.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Row::decode(b"key", &flipped), None, "bit {bit}");
        }
    }
}
