//! Protobuf messages as runs of bytes: what is not changed keeps every byte, fields that nobody knows included.
//!
//! A message is a sequence of fields, each a key (number and wire type, a varint) and a body. Decoding into structures
//! and encoding again would lose unknown fields and the order of the known; cutting and splicing runs of bytes does not.

use crate::workload::onnx::load::varint;
use bytes::Bytes;
use std::ops::Range;

/// One field of a message.
#[derive(Clone, Debug)]
pub struct Field {
    /// Its number in the message's definition.
    pub number: u64,
    /// Wire type: 0 varint, 1 eight bytes, 2 length-delimited, 5 four bytes.
    pub wire: u8,
    /// Key, length and body.
    pub whole: Range<usize>,
    /// The body alone.
    pub body: Range<usize>,
}

/// The fields of a message in order.
///
/// # Errors
/// Where the bytes break off, in words.
pub fn fields(message: &[u8]) -> Result<Vec<Field>, String> {
    let mut at = 0;
    let mut all = Vec::new();
    while at < message.len() {
        let start = at;
        let cut = || format!("a field at byte {start} of a message of {} bytes breaks off", message.len());
        let key = varint(message, &mut at).ok_or_else(cut)?;
        let body = at;
        let (from, to) = match key & 7 {
            0 => {
                varint(message, &mut at).ok_or_else(cut)?;
                (body, at)
            }
            1 => (body, body + 8),
            5 => (body, body + 4),
            2 => {
                let len = varint(message, &mut at).ok_or_else(cut)?;
                let to = usize::try_from(len).ok().and_then(|l| at.checked_add(l)).ok_or_else(cut)?;
                (at, to)
            }
            other => return Err(format!("a field at byte {start} has wire type {other}, which is not followed")),
        };
        if to > message.len() {
            return Err(cut());
        }
        at = to;
        all.push(Field { number: key >> 3, wire: (key & 7) as u8, whole: start..to, body: from..to });
    }
    Ok(all)
}

/// A part of an output message.
#[derive(Clone, Debug)]
pub enum Piece {
    /// These bytes.
    Bytes(Bytes),
    /// The elements of an edited tensor, made when they are written: its number, and how many bytes it will give.
    Elements(usize, u64),
}

/// A message in the making.
#[derive(Clone, Debug, Default)]
pub struct Pieces {
    /// Its parts in order.
    pub list: Vec<Piece>,
    /// Bytes of all parts.
    pub len: u64,
}

impl Pieces {
    /// Appends bytes.
    pub fn bytes(&mut self, bytes: impl Into<Bytes>) {
        let bytes = bytes.into();
        if !bytes.is_empty() {
            self.len += bytes.len() as u64;
            self.list.push(Piece::Bytes(bytes));
        }
    }

    /// Appends the elements of an edited tensor as a length-delimited field.
    pub fn elements(&mut self, number: u64, edit: usize, len: u64) {
        self.key(number, len);
        self.len += len;
        self.list.push(Piece::Elements(edit, len));
    }

    /// Appends a message as a length-delimited field.
    pub fn message(&mut self, number: u64, inner: Self) {
        self.key(number, inner.len);
        self.len += inner.len;
        self.list.extend(inner.list);
    }

    /// Appends an encoded message as a length-delimited field.
    pub fn encoded(&mut self, number: u64, inner: &impl prost::Message) {
        self.key(number, inner.encoded_len() as u64);
        self.bytes(inner.encode_to_vec());
    }

    fn key(&mut self, number: u64, len: u64) {
        let mut head = Vec::with_capacity(12);
        prost::encoding::encode_varint(number << 3 | 2, &mut head);
        prost::encoding::encode_varint(len, &mut head);
        self.bytes(head);
    }
}
