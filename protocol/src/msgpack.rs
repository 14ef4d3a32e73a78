//! The canonical subset of MessagePack that objects and contexts are written in.
//!
//! Shape: unsigned and signed integers, strings, binaries, nil, arrays and maps; every integer and every length in its
//! shortest form, so that one value has one encoding. Source: the MessagePack specification.
//! Invariant: `Reader` never reads past its input, never allocates by a count it was told, and refuses any longer form.

use bytes::Bytes;

/// Why bytes are no canonical object or context. Nothing was decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The input ends inside a value, or a count promises more than the input can hold.
    #[error("the input ends too early")]
    Truncated,
    /// Bytes follow the value.
    #[error("{bytes} bytes follow the value")]
    Trailing {
        /// How many.
        bytes: usize,
    },
    /// Written by a version this build does not know.
    #[error("format version {found} is not known here")]
    Version {
        /// The version byte found.
        found: u8,
    },
    /// A value of another kind stands where `expected` must.
    #[error("expected {expected}")]
    Kind {
        /// What must stand there.
        expected: &'static str,
    },
    /// Readable, but not the one form that the value has.
    #[error("not in canonical form: {rule}")]
    NotCanonical {
        /// The rule it breaks.
        rule: &'static str,
    },
    /// Maps are nested deeper than the decoder follows.
    #[error("maps are nested deeper than {depth_max}")]
    TooDeep {
        /// The deepest nesting followed.
        depth_max: usize,
    },
    /// A live dot is not covered by the object's own context.
    #[error("a live dot is not covered by the context")]
    Uncovered,
}

pub(crate) fn write_nil(out: &mut Vec<u8>) {
    out.push(NIL);
}

pub(crate) fn write_uint(out: &mut Vec<u8>, value: u64) {
    match value {
        0..=0x7f => out.push(value as u8),
        0x80..=0xff => out.extend([0xcc, value as u8]),
        0x100..=0xffff => {
            out.push(0xcd);
            out.extend((value as u16).to_be_bytes());
        }
        0x1_0000..=0xffff_ffff => {
            out.push(0xce);
            out.extend((value as u32).to_be_bytes());
        }
        0x1_0000_0000.. => {
            out.push(0xcf);
            out.extend(value.to_be_bytes());
        }
    }
}

pub(crate) fn write_int(out: &mut Vec<u8>, value: i64) {
    match value {
        0.. => write_uint(out, value.unsigned_abs()),
        -32..=-1 => out.push(value as u8),
        -0x80..=-33 => out.extend([0xd0, value as u8]),
        -0x8000..=-0x81 => {
            out.push(0xd1);
            out.extend((value as i16).to_be_bytes());
        }
        -0x8000_0000..=-0x8001 => {
            out.push(0xd2);
            out.extend((value as i32).to_be_bytes());
        }
        ..=-0x8000_0001 => {
            out.push(0xd3);
            out.extend(value.to_be_bytes());
        }
    }
}

pub(crate) fn write_str(out: &mut Vec<u8>, text: &str) {
    write_length(out, text.len(), STR);
    out.extend_from_slice(text.as_bytes());
}

pub(crate) fn write_bin(out: &mut Vec<u8>, bytes: &[u8]) {
    write_length(out, bytes.len(), BIN);
    out.extend_from_slice(bytes);
}

pub(crate) fn write_array(out: &mut Vec<u8>, count: usize) {
    write_length(out, count, ARRAY);
}

pub(crate) fn write_map(out: &mut Vec<u8>, count: usize) {
    write_length(out, count, MAP);
}

/// Reads canonical values from the front of a slice.
pub(crate) struct Reader<'a> {
    input: &'a [u8],
    at: usize,
    /// The buffer `input` lies in, when binaries may be slices of it.
    shared: Option<&'a Bytes>,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(input: &'a [u8]) -> Self {
        Self { input, at: 0, shared: None }
    }

    /// Binaries read from here are slices of `input`, not copies.
    pub(crate) fn shared(input: &'a Bytes) -> Self {
        Self { input, at: 0, shared: Some(input) }
    }

    pub(crate) fn finish(self) -> Result<(), DecodeError> {
        match self.remaining() {
            0 => Ok(()),
            bytes => Err(DecodeError::Trailing { bytes }),
        }
    }

    pub(crate) fn byte(&mut self) -> Result<u8, DecodeError> {
        Ok(self.fixed::<1>()?[0])
    }

    pub(crate) fn kind(&self) -> Result<Kind, DecodeError> {
        let first = *self.input.get(self.at).ok_or(DecodeError::Truncated)?;
        Ok(match first {
            0x00..=0x7f | 0xcc..=0xcf => Kind::Unsigned,
            0xe0..=0xff | 0xd0..=0xd3 => Kind::Negative,
            0xa0..=0xbf | 0xd9..=0xdb => Kind::Str,
            0xc4..=0xc6 => Kind::Bin,
            0x90..=0x9f | 0xdc | 0xdd => Kind::Array,
            0x80..=0x8f | 0xde | 0xdf => Kind::Map,
            NIL => Kind::Nil,
            0xc1..=0xc3 | 0xc7..=0xcb | 0xd4..=0xd8 => return Err(DecodeError::Kind { expected: "a canonical value" }),
        })
    }

    pub(crate) fn nil(&mut self) -> Result<(), DecodeError> {
        match self.byte()? {
            NIL => Ok(()),
            _ => Err(DecodeError::Kind { expected: "nil" }),
        }
    }

    pub(crate) fn uint(&mut self) -> Result<u64, DecodeError> {
        let (value, least) = match self.byte()? {
            small @ 0x00..=0x7f => (u64::from(small), 0),
            0xcc => (u64::from(self.byte()?), 0x80),
            0xcd => (u64::from(u16::from_be_bytes(self.fixed()?)), 0x100),
            0xce => (u64::from(u32::from_be_bytes(self.fixed()?)), 0x1_0000),
            0xcf => (u64::from_be_bytes(self.fixed()?), 0x1_0000_0000),
            _ => return Err(DecodeError::Kind { expected: "an unsigned integer" }),
        };
        if value < least { Err(SHORTEST) } else { Ok(value) }
    }

    pub(crate) fn int(&mut self) -> Result<i64, DecodeError> {
        if self.kind()? == Kind::Unsigned {
            return i64::try_from(self.uint()?).map_err(|_| DecodeError::Kind { expected: "a 64-bit signed integer" });
        }
        let (value, most) = match self.byte()? {
            small @ 0xe0..=0xff => (i64::from(small as i8), -1),
            0xd0 => (i64::from(i8::from_be_bytes(self.fixed()?)), -33),
            0xd1 => (i64::from(i16::from_be_bytes(self.fixed()?)), -0x81),
            0xd2 => (i64::from(i32::from_be_bytes(self.fixed()?)), -0x8001),
            0xd3 => (i64::from_be_bytes(self.fixed()?), -0x8000_0001),
            _ => return Err(DecodeError::Kind { expected: "an integer" }),
        };
        if value > most { Err(SHORTEST) } else { Ok(value) }
    }

    pub(crate) fn str(&mut self) -> Result<&'a str, DecodeError> {
        let length = self.length(STR)?;
        std::str::from_utf8(self.take(length)?).map_err(|_| DecodeError::Kind { expected: "UTF-8" })
    }

    pub(crate) fn bin(&mut self) -> Result<Bytes, DecodeError> {
        let length = self.length(BIN)?;
        let slice = self.take(length)?;
        Ok(self.shared.map_or_else(|| Bytes::copy_from_slice(slice), |whole| whole.slice_ref(slice)))
    }

    /// An array's item count: at most the bytes that are left, as every item takes one.
    pub(crate) fn array(&mut self) -> Result<usize, DecodeError> {
        let count = self.length(ARRAY)?;
        if count > self.remaining() { Err(DecodeError::Truncated) } else { Ok(count) }
    }

    /// A map's pair count: at most half the bytes that are left.
    pub(crate) fn map(&mut self) -> Result<usize, DecodeError> {
        let count = self.length(MAP)?;
        if count > self.remaining() / 2 { Err(DecodeError::Truncated) } else { Ok(count) }
    }

    fn length(&mut self, forms: Forms) -> Result<usize, DecodeError> {
        let first = self.byte()?;
        if (forms.fix..forms.fix + forms.fix_count).contains(&first) {
            return Ok(usize::from(first - forms.fix));
        }
        let fix_count = usize::from(forms.fix_count);
        let (length, least) = if forms.one == Some(first) {
            (usize::from(self.byte()?), fix_count)
        } else if first == forms.two {
            (usize::from(u16::from_be_bytes(self.fixed()?)), if forms.one.is_some() { 0x100 } else { fix_count })
        } else if first == forms.two + 1 {
            (u32::from_be_bytes(self.fixed()?) as usize, 0x1_0000)
        } else {
            return Err(DecodeError::Kind { expected: forms.name });
        };
        if length < least { Err(SHORTEST) } else { Ok(length) }
    }

    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let mut bytes = [0; N];
        bytes.copy_from_slice(self.take(N)?);
        Ok(bytes)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], DecodeError> {
        let slice = self.input.get(self.at..).and_then(|rest| rest.get(..length)).ok_or(DecodeError::Truncated)?;
        self.at += length;
        Ok(slice)
    }

    fn remaining(&self) -> usize {
        self.input.len() - self.at
    }
}

/// What stands next in the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Unsigned,
    Negative,
    Str,
    Bin,
    Array,
    Map,
    Nil,
}

/// The headers of one length-prefixed kind: `fix..fix + fix_count` hold the length themselves, `one` is followed by one
/// byte of it, `two` by two, `two + 1` by four.
#[derive(Clone, Copy)]
struct Forms {
    name: &'static str,
    fix: u8,
    fix_count: u8,
    one: Option<u8>,
    two: u8,
}

fn write_length(out: &mut Vec<u8>, length: usize, forms: Forms) {
    if length < usize::from(forms.fix_count) {
        out.push(forms.fix + length as u8);
    } else if let (Some(header), Ok(length)) = (forms.one, u8::try_from(length)) {
        out.extend([header, length]);
    } else if let Ok(length) = u16::try_from(length) {
        out.push(forms.two);
        out.extend(length.to_be_bytes());
    } else {
        let length = u32::try_from(length).expect("admission keeps every part of an object far below 4 GiB");
        out.push(forms.two + 1);
        out.extend(length.to_be_bytes());
    }
}

const NIL: u8 = 0xc0;
const STR: Forms = Forms { name: "a string", fix: 0xa0, fix_count: 32, one: Some(0xd9), two: 0xda };
const BIN: Forms = Forms { name: "a binary", fix: 0, fix_count: 0, one: Some(0xc4), two: 0xc5 };
const ARRAY: Forms = Forms { name: "an array", fix: 0x90, fix_count: 16, one: None, two: 0xdc };
const MAP: Forms = Forms { name: "a map", fix: 0x80, fix_count: 16, one: None, two: 0xde };
const SHORTEST: DecodeError = DecodeError::NotCanonical { rule: "shortest form of integers and lengths" };

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_have_one_form() {
        for value in [0, 1, 0x7f, 0x80, 0xff, 0x100, 0xffff, 0x1_0000, 0xffff_ffff, 0x1_0000_0000, u64::MAX] {
            let mut out = Vec::new();
            write_uint(&mut out, value);
            assert_eq!(Reader::new(&out).uint(), Ok(value));
        }
        for value in
            [0, 1, i64::MAX, -1, -32, -33, -0x80, -0x81, -0x8000, -0x8001, -0x8000_0000, -0x8000_0001, i64::MIN]
        {
            let mut out = Vec::new();
            write_int(&mut out, value);
            let mut reader = Reader::new(&out);
            assert_eq!(reader.int(), Ok(value));
            assert_eq!(reader.finish(), Ok(()));
        }
        for long in [&[0xcc, 0x7f][..], &[0xcd, 0, 0xff], &[0xce, 0, 0, 0xff, 0xff], &[0xcf, 0, 0, 0, 0, 1, 1, 1, 1]] {
            assert_eq!(Reader::new(long).uint(), Err(SHORTEST));
        }
        for long in [&[0xd0, 0xe0][..], &[0xd1, 0xff, 0x80], &[0xd0, 0x05], &[0xcc, 0x05]] {
            assert_eq!(Reader::new(long).int(), Err(SHORTEST));
        }
    }

    #[test]
    fn lengths_have_one_form_and_no_count_is_believed() {
        for length in [0, 1, 31, 32, 255, 256, 65_535, 65_536] {
            let (mut text, mut binary) = (Vec::new(), Vec::new());
            write_str(&mut text, &"x".repeat(length));
            write_bin(&mut binary, &vec![7; length]);
            assert_eq!(Reader::new(&text).str().map(str::len), Ok(length));
            assert_eq!(Reader::new(&binary).bin().map(|bytes| bytes.len()), Ok(length));
        }
        assert_eq!(Reader::new(&[0xd9, 31]).str(), Err(SHORTEST));
        assert_eq!(Reader::new(&[0xda, 0, 200]).str(), Err(SHORTEST));
        assert_eq!(Reader::new(&[0xc5, 0, 200]).bin(), Err(SHORTEST));
        assert_eq!(Reader::new(&[0xdc, 0, 15]).array(), Err(SHORTEST));
        assert_eq!(Reader::new(&[0xdd, 0xff, 0xff, 0xff, 0xff, 1]).array(), Err(DecodeError::Truncated));
        assert_eq!(Reader::new(&[0xdf, 0xff, 0xff, 0xff, 0xff, 1]).map(), Err(DecodeError::Truncated));
        assert_eq!(Reader::new(&[0xc6, 0xff, 0xff, 0xff, 0xff, 1]).bin(), Err(DecodeError::Truncated));
    }
}
