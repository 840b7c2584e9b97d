//! A message taken apart into a skeleton and parts, and put together again, bit for bit.
//!
//! The [`Skeleton`] is the message with its larger bodies cut out. Each body that is cut out is a part, an object
//! of its own, so that an attachment sent twice, or forwarded, is the same object. A part in base64 is stored
//! *decoded*, and the skeleton keeps how its lines were broken ([`Shape`]), because two mail clients wrap the same file
//! differently:
//!
//! ```text
//! message    headers ‖ --b ‖ headers ‖ text ‖ --b ‖ headers ‖ base64 in lines of 76 ‖ CRLF --b--
//! skeleton   ├───────────── inline ─────────────────────────┤ part(base64, 76, CRLF) ├─ inline ─┤
//! parts                                                       the file itself
//! ```
//!
//! Invariants: the skeleton names every part exactly once, in order, so what it assembles to is bounded by the sizes
//! it declares; [`split`] has assembled what it returns and compared it with the message. A body that does not
//! re-encode exactly is stored as it is; a small one stays inline. Any bytes whatever can be split.

use super::header::line_end;
use super::limits::{MESSAGE_BYTES_MAX, PART_BYTES_MIN, PARTS_MAX};
use super::structure::{Content, Structure};
use super::walk::structure_of;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use minicbor::{Decode, Encode};
use std::fmt;

/// Format of an encoded skeleton.
const VERSION: u8 = 1;
/// Most segments: a part has one inline run before it, and one may follow the last.
const SEGMENTS_MAX: usize = 2 * PARTS_MAX + 1;

/// A message taken apart.
#[derive(Clone, Debug)]
pub struct Split {
    /// The message without its parts.
    pub skeleton: Skeleton,
    /// The parts, in the order in which the skeleton names them.
    pub parts: Vec<Bytes>,
    /// The message's MIME tree.
    pub structure: Structure,
}

/// A message without its parts, and how each goes back in.
#[derive(Clone, PartialEq, Eq)]
pub struct Skeleton {
    /// Octets of the whole message.
    size: u32,
    /// Hash of the whole message.
    hash: [u8; 32],
    segments: Vec<Segment>,
}

/// One run of the message.
#[derive(Clone, PartialEq, Eq)]
enum Segment {
    /// These bytes.
    Inline(Bytes),
    /// The next part.
    Part(Shape),
}

/// How the bytes of a part become the bytes of the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// As they are.
    Raw,
    /// In base64, broken into lines of `line` characters (0: not broken). The last line has no ending of its own:
    /// what follows it in the message is inline.
    Base64 {
        /// Characters in each line but the last.
        line: u32,
        /// What ends each line but the last.
        ending: LineEnding,
    },
}

/// What ends a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum LineEnding {
    /// CR LF.
    #[n(0)]
    CrLf,
    /// LF alone.
    #[n(1)]
    Lf,
}

/// Why a message cannot be put together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PartsError {
    /// The skeleton is not one, or over a bound.
    #[error("not a skeleton")]
    Malformed,
    /// The parts do not add up to the declared size: an attempt to make a small mail grow, or the wrong parts.
    #[error("the parts do not add up to the size the skeleton declares")]
    WrongSize,
    /// What was put together is not what was taken apart.
    #[error("the assembled message is not the one that was split")]
    WrongMessage,
}

impl LineEnding {
    fn bytes(self) -> &'static [u8] {
        match self {
            LineEnding::CrLf => b"\r\n",
            LineEnding::Lf => b"\n",
        }
    }
}

impl Shape {
    /// How many bytes of the message a part of `length` bytes makes; `None` when that overflows.
    fn length_in_message(self, length: u64) -> Option<u64> {
        match self {
            Shape::Raw => Some(length),
            Shape::Base64 { line, ending } => {
                let characters = length.div_ceil(3).checked_mul(4)?;
                let breaks = if line == 0 { 0 } else { characters.div_ceil(u64::from(line)).saturating_sub(1) };
                breaks.checked_mul(ending.bytes().len() as u64)?.checked_add(characters)
            }
        }
    }

    fn write(self, part: &[u8], message: &mut BytesMut) {
        let Shape::Base64 { line, ending } = self else { return message.extend_from_slice(part) };
        let text = STANDARD.encode(part);
        let width = if line == 0 { text.len().max(1) } else { line as usize };
        for (index, run) in text.as_bytes().chunks(width).enumerate() {
            if index > 0 {
                message.extend_from_slice(ending.bytes());
            }
            message.extend_from_slice(run);
        }
    }
}

/// Takes a message apart. What it returns assembles to exactly this message.
///
/// # Panics
/// If the message is larger than [`MESSAGE_BYTES_MAX`]: it is checked on receipt.
#[must_use]
pub fn split(message: &Bytes) -> Split {
    assert!(message.len() <= MESSAGE_BYTES_MAX, "checked on receipt");
    let structure = structure_of(message);
    let mut cut = Cut { message, at: 0, segments: Vec::new(), parts: Vec::new() };
    for entity in structure.entities() {
        if matches!(entity.content, Content::Single) && entity.size() as usize >= PART_BYTES_MIN {
            cut.body(entity);
        }
    }
    cut.inline_to(message.len());
    let Cut { segments, parts, .. } = cut;
    let skeleton = Skeleton { size: message.len() as u32, hash: hash_of(message), segments };
    // By construction this holds; but mail is worth a check against what we did not think of.
    if assemble(&skeleton, &parts).as_ref() == Ok(message) {
        return Split { skeleton, parts, structure };
    }
    let whole = Skeleton { segments: vec![Segment::Part(Shape::Raw)], ..skeleton };
    Split { skeleton: whole, parts: vec![message.clone()], structure }
}

/// Puts a message together again and checks that it is the one that was split.
pub fn assemble(skeleton: &Skeleton, parts: &[Bytes]) -> Result<Bytes, PartsError> {
    let lengths: Vec<u64> = parts.iter().map(|part| part.len() as u64).collect();
    skeleton.check_lengths(&lengths)?;
    let mut message = BytesMut::with_capacity(skeleton.size as usize);
    let mut parts = parts.iter();
    for segment in &skeleton.segments {
        match segment {
            Segment::Inline(bytes) => message.extend_from_slice(bytes),
            Segment::Part(shape) => shape.write(parts.next().ok_or(PartsError::WrongSize)?, &mut message),
        }
    }
    if message.len() != skeleton.size as usize || hash_of(&message) != skeleton.hash {
        return Err(PartsError::WrongMessage);
    }
    Ok(message.freeze())
}

fn hash_of(message: &[u8]) -> [u8; 32] {
    *blake3::Hasher::new_derive_key("ePOST 2026 whole message").update(message).finalize().as_bytes()
}

impl Skeleton {
    /// Octets of the whole message.
    #[must_use]
    pub fn size(&self) -> u32 {
        self.size
    }

    /// Checks that parts of these lengths make a message of the declared size, without having them.
    pub fn check_lengths(&self, lengths: &[u64]) -> Result<(), PartsError> {
        let mut lengths = lengths.iter();
        let mut size = 0u64;
        for segment in &self.segments {
            let more = match segment {
                Segment::Inline(bytes) => Some(bytes.len() as u64),
                Segment::Part(shape) => lengths.next().and_then(|length| shape.length_in_message(*length)),
            };
            size = more.and_then(|more| size.checked_add(more)).ok_or(PartsError::WrongSize)?;
        }
        if lengths.next().is_some() || size != u64::from(self.size) { Err(PartsError::WrongSize) } else { Ok(()) }
    }

    /// The skeleton as CBOR: `[version, size, hash, [segment…]]`; a segment is bytes (inline), `0` (raw part) or
    /// `[line, ending]` (part in base64).
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut encoder = minicbor::Encoder::new(Vec::new());
        self.write(&mut encoder).expect("encoding into a Vec does not fail");
        encoder.into_writer()
    }

    fn write(
        &self,
        encoder: &mut minicbor::Encoder<Vec<u8>>,
    ) -> Result<(), minicbor::encode::Error<std::convert::Infallible>> {
        encoder.array(4)?.u8(VERSION)?.u32(self.size)?.bytes(&self.hash)?.array(self.segments.len() as u64)?;
        for segment in &self.segments {
            match segment {
                Segment::Inline(bytes) => encoder.bytes(bytes)?,
                Segment::Part(Shape::Raw) => encoder.u8(0)?,
                Segment::Part(Shape::Base64 { line, ending }) => encoder.array(2)?.u32(*line)?.encode(ending)?,
            };
        }
        Ok(())
    }

    /// Reads a skeleton; inline runs share the memory of `bytes`.
    pub fn decode(bytes: &Bytes) -> Result<Skeleton, PartsError> {
        let mut decoder = minicbor::Decoder::new(bytes);
        let skeleton = Skeleton::read(&mut decoder, bytes).map_err(|_| PartsError::Malformed)?;
        let is_bounded = skeleton.size as usize <= MESSAGE_BYTES_MAX;
        if decoder.position() != bytes.len() || !is_bounded {
            return Err(PartsError::Malformed);
        }
        Ok(skeleton)
    }

    fn read(decoder: &mut minicbor::Decoder<'_>, bytes: &Bytes) -> Result<Skeleton, minicbor::decode::Error> {
        let malformed = || minicbor::decode::Error::message("not a skeleton");
        if decoder.array()? != Some(4) || decoder.u8()? != VERSION {
            return Err(malformed());
        }
        let size = decoder.u32()?;
        let hash = decoder.bytes()?.try_into().map_err(|_| malformed())?;
        let count = decoder.array()?.filter(|count| *count <= SEGMENTS_MAX as u64).ok_or_else(malformed)?;
        let mut segments = Vec::new();
        for _ in 0..count {
            segments.push(match decoder.datatype()? {
                minicbor::data::Type::Bytes => Segment::Inline(bytes.slice_ref(decoder.bytes()?)),
                minicbor::data::Type::Array => Segment::Part(base64_shape(decoder)?),
                _ if decoder.u8()? == 0 => Segment::Part(Shape::Raw),
                _ => return Err(malformed()),
            });
        }
        Ok(Skeleton { size, hash, segments })
    }
}

fn base64_shape(decoder: &mut minicbor::Decoder<'_>) -> Result<Shape, minicbor::decode::Error> {
    if decoder.array()? != Some(2) {
        return Err(minicbor::decode::Error::message("not a shape"));
    }
    Ok(Shape::Base64 { line: decoder.u32()?, ending: decoder.decode()? })
}

impl fmt::Debug for Skeleton {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The inline runs are somebody's mail: only sizes are shown.
        f.debug_struct("Skeleton").field("size", &self.size).field("segments", &self.segments.len()).finish()
    }
}

/// The state of [`split`]: what lies before `at` is in `segments`.
struct Cut<'a> {
    message: &'a Bytes,
    at: usize,
    segments: Vec<Segment>,
    parts: Vec<Bytes>,
}

impl Cut<'_> {
    fn inline_to(&mut self, end: usize) {
        assert!(self.at <= end);
        if self.at < end {
            self.segments.push(Segment::Inline(self.message.slice(self.at..end)));
        }
        self.at = end;
    }

    fn body(&mut self, entity: &Structure) {
        let body = entity.body();
        let decoded = if entity.fields.is_base64() { Base64Run::find(&self.message[body.clone()]) } else { None };
        match decoded {
            Some(run) => {
                self.inline_to(body.start + run.start);
                self.segments.push(Segment::Part(run.shape));
                self.parts.push(run.decoded);
                self.at = body.start + run.end;
            }
            None => {
                self.inline_to(body.start);
                self.segments.push(Segment::Part(Shape::Raw));
                self.parts.push(self.message.slice(body.clone()));
                self.at = body.end;
            }
        }
    }
}

/// The run of regular base64 lines in a body.
struct Base64Run {
    start: usize,
    end: usize,
    shape: Shape,
    decoded: Bytes,
}

impl Base64Run {
    /// Finds the run, if it is nearly all of the body and decodes to bytes that encode to it again.
    fn find(body: &[u8]) -> Option<Base64Run> {
        let mut start = 0;
        while matches!(body.get(start), Some(b'\r' | b'\n')) {
            start += 1;
        }
        let lines = RegularLines::collect(body, start);
        let surround = start + (body.len() - lines.end);
        if surround >= PART_BYTES_MIN || lines.text.len() < PART_BYTES_MIN / 2 {
            return None;
        }
        // Strict: padding is demanded, and bits that decode to nothing must be zero.
        let decoded = STANDARD.decode(&lines.text).ok()?;
        let line = if lines.count > 1 { u32::try_from(lines.width).ok()? } else { 0 };
        let shape = Shape::Base64 { line, ending: lines.ending };
        Some(Base64Run { start, end: lines.end, shape, decoded: Bytes::from(decoded) })
    }
}

/// Lines of one width and one ending; the last may be shorter and may end in any way.
struct RegularLines {
    text: Vec<u8>,
    width: usize,
    ending: LineEnding,
    count: usize,
    /// Where the last line's characters end.
    end: usize,
}

impl RegularLines {
    fn collect(body: &[u8], start: usize) -> RegularLines {
        let mut lines = RegularLines {
            text: Vec::with_capacity(body.len() - start),
            width: 0,
            ending: LineEnding::CrLf,
            count: 0,
            end: start,
        };
        let mut at = start;
        while at < body.len() {
            let next = line_end(body, at);
            let (characters, ending) = parted(&body[at..next]);
            if lines.count == 0 {
                lines.width = characters.len();
                lines.ending = ending.unwrap_or(LineEnding::CrLf);
            }
            if characters.is_empty() || characters.len() > lines.width || !characters.iter().all(is_base64) {
                break;
            }
            lines.text.extend_from_slice(characters);
            lines.count += 1;
            lines.end = at + characters.len();
            if characters.len() < lines.width || ending != Some(lines.ending) {
                break;
            }
            at = next;
        }
        lines
    }
}

fn parted(line: &[u8]) -> (&[u8], Option<LineEnding>) {
    if let Some(characters) = line.strip_suffix(b"\r\n") {
        (characters, Some(LineEnding::CrLf))
    } else if let Some(characters) = line.strip_suffix(b"\n") {
        (characters, Some(LineEnding::Lf))
    } else {
        (line, None)
    }
}

fn is_base64(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=')
}
