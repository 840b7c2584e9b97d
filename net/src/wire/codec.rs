//! Frames: a fixed little-endian header, a CBOR body, a raw payload.
//!
//! ```text
//!  0  version          u8
//!  1  type             u8
//!  2  reserved        u16   zero when sent, ignored when received
//!  4  from            u16   index of the sender's virtual node id
//!  6  to              u16   index of the receiver's virtual node id
//!  8  request         u64   ties an answer to its question
//! 16  body length     u32   at most 64 KiB
//! 20  payload length  u32   at most 4 MiB + 64 KiB; zero for types without a payload
//! 24  body                  CBOR map with integer keys
//!     payload               raw
//! ```
//!
//! Both lengths are checked before anything is allocated for them, and again against the frame.

use crate::limits::{BODY_BYTES_MAX, PAYLOAD_BYTES_MAX};
use crate::wire::body::Body;
use crate::wire::{Ends, Message, WIRE_VERSION, WireError};
use bytes::{BufMut, Bytes, BytesMut};

/// Bytes in a frame's header.
pub const HEADER_BYTES: usize = 24;

const BODY_LENGTH_AT: usize = 16;
const PAYLOAD_LENGTH_AT: usize = 20;

/// A message in bytes: `head` then `payload`, which is the very buffer the message held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Header and CBOR body.
    pub head: Bytes,
    /// Raw payload; may be empty.
    pub payload: Bytes,
}

impl Frame {
    /// The frame in one buffer; copies the payload, so only for datagrams and tests.
    #[must_use]
    pub fn joined(&self) -> Bytes {
        let mut whole = BytesMut::with_capacity(self.head.len() + self.payload.len());
        whole.put_slice(&self.head);
        whole.put_slice(&self.payload);
        whole.freeze()
    }
}

/// Lays out a message between two virtual nodes.
///
/// # Panics
/// If the message is over a bound of [`crate::limits`]: our own mistake, for what is built here is bounded.
#[must_use]
pub fn encode(message: &Message, ends: Ends) -> Frame {
    let payload = message.body.payload();
    let mut head = Vec::with_capacity(HEADER_BYTES + 96);
    head.resize(HEADER_BYTES, 0);
    head[0] = WIRE_VERSION;
    head[1] = message.body.number();
    head[4..6].copy_from_slice(&ends.from.to_le_bytes());
    head[6..8].copy_from_slice(&ends.to.to_le_bytes());
    head[8..16].copy_from_slice(&message.request.to_le_bytes());
    write_body(&message.body, &mut head);
    let body_bytes = head.len() - HEADER_BYTES;
    assert!(body_bytes <= BODY_BYTES_MAX, "body over its bound");
    assert!(payload.len() <= PAYLOAD_BYTES_MAX, "payload over its bound");
    head[BODY_LENGTH_AT..BODY_LENGTH_AT + 4].copy_from_slice(&(body_bytes as u32).to_le_bytes());
    head[PAYLOAD_LENGTH_AT..HEADER_BYTES].copy_from_slice(&(payload.len() as u32).to_le_bytes());
    Frame { head: Bytes::from(head), payload }
}

/// Length of the whole frame that starts with this header, once its bounds were checked. Reads
/// [`HEADER_BYTES`] bytes; call it before making room for the rest.
///
/// # Errors
/// [`WireError::Version`], [`WireError::Type`] or [`WireError::TooLarge`].
pub fn frame_length(header: &[u8; HEADER_BYTES]) -> Result<usize, WireError> {
    let header = Header::read(header)?;
    Ok(HEADER_BYTES + header.body_bytes + header.payload_bytes)
}

/// Reads one whole frame. The payload is a slice of `frame`, not a copy.
///
/// # Errors
/// [`WireError`], telling what is wrong with it.
pub fn decode(frame: &Bytes) -> Result<(Ends, Message), WireError> {
    let head: &[u8; HEADER_BYTES] = frame.first_chunk().ok_or(WireError::Length)?;
    let header = Header::read(head)?;
    if frame.len() != HEADER_BYTES + header.body_bytes + header.payload_bytes {
        return Err(WireError::Length);
    }
    let payload_at = HEADER_BYTES + header.body_bytes;
    let body = read_body(header.number, &frame[HEADER_BYTES..payload_at], frame.slice(payload_at..))?;
    body.check()?;
    Ok((header.ends, Message { request: header.request, body }))
}

struct Header {
    number: u8,
    ends: Ends,
    request: u64,
    body_bytes: usize,
    payload_bytes: usize,
}

impl Header {
    fn read(bytes: &[u8; HEADER_BYTES]) -> Result<Header, WireError> {
        let [version, number, _, _, f0, f1, t0, t1, r0, r1, r2, r3, r4, r5, r6, r7, b0, b1, b2, b3, p0, p1, p2, p3] =
            *bytes;
        if version != WIRE_VERSION {
            return Err(WireError::Version(version));
        }
        if !is_type(number) {
            return Err(WireError::Type(number));
        }
        let body_bytes = u32::from_le_bytes([b0, b1, b2, b3]) as usize;
        let payload_bytes = u32::from_le_bytes([p0, p1, p2, p3]) as usize;
        let payload_max = if has_payload(number) { PAYLOAD_BYTES_MAX } else { 0 };
        if body_bytes > BODY_BYTES_MAX || payload_bytes > payload_max {
            return Err(WireError::TooLarge);
        }
        Ok(Header {
            number,
            ends: Ends { from: u16::from_le_bytes([f0, f1]), to: u16::from_le_bytes([t0, t1]) },
            request: u64::from_le_bytes([r0, r1, r2, r3, r4, r5, r6, r7]),
            body_bytes,
            payload_bytes,
        })
    }
}

fn is_type(number: u8) -> bool {
    matches!(number, 1..=12 | 16..=26 | 32..=33 | 40..=46 | 48)
}

fn has_payload(number: u8) -> bool {
    matches!(number, 11 | 12 | 16 | 18 | 21 | 32 | 33 | 43 | 45 | 48)
}

fn write_body(body: &Body, head: &mut Vec<u8>) {
    let written = match body {
        Body::Hello(b) => minicbor::encode(b, head),
        Body::Ping(b) | Body::Pong(b) => minicbor::encode(b, head),
        Body::LeafSet(b) => minicbor::encode(b, head),
        Body::RowRequest(b) => minicbor::encode(b, head),
        Body::Row(b) => minicbor::encode(b, head),
        Body::Route(b) => minicbor::encode(b, head),
        Body::Located(b) => minicbor::encode(b, head),
        Body::RingRequest(b) => minicbor::encode(b, head),
        Body::Relay(b, _) => minicbor::encode(b, head),
        Body::Insert(b, _) | Body::Store(b, _) => minicbor::encode(b, head),
        Body::Inserted(b) => minicbor::encode(b, head),
        Body::StoreAnswer(b) => minicbor::encode(b, head),
        Body::Fetch(b) => minicbor::encode(b, head),
        Body::FetchAnswer(b, _) => minicbor::encode(b, head),
        Body::Extend(b) => minicbor::encode(b, head),
        Body::Extended(b) => minicbor::encode(b, head),
        Body::RangeDigest(b) => minicbor::encode(b, head),
        Body::RangeListing(b) => minicbor::encode(b, head),
        Body::Subscribe(b) => minicbor::encode(b, head),
        Body::Subscribed(b) => minicbor::encode(b, head),
        Body::Leave(b) => minicbor::encode(b, head),
        Body::Publication(b, _) => minicbor::encode(b, head),
        Body::Taken(b) => minicbor::encode(b, head),
        Body::Anycast(b, _) => minicbor::encode(b, head),
        Body::AnycastAnswer(b) => minicbor::encode(b, head),
        Body::Glacier(b, _) => {
            head.extend_from_slice(b);
            Ok(())
        }
        // Nothing to say beside the payload: the body is empty.
        Body::HopAck | Body::RangeAgreed | Body::RingDocument(_) | Body::Tell(_) | Body::Told(_) => Ok(()),
    };
    written.expect("encoding into a Vec cannot fail");
}

fn read_body(number: u8, body: &[u8], payload: Bytes) -> Result<Body, WireError> {
    Ok(match number {
        1 => Body::Hello(cbor(body)?),
        2 => Body::Ping(cbor(body)?),
        3 => Body::Pong(cbor(body)?),
        4 => Body::LeafSet(cbor(body)?),
        5 => Body::RowRequest(cbor(body)?),
        6 => Body::Row(cbor(body)?),
        7 => Body::Route(cbor(body)?),
        8 => empty(body, Body::HopAck)?,
        9 => Body::Located(cbor(body)?),
        10 => Body::RingRequest(cbor(body)?),
        11 => empty(body, Body::RingDocument(payload))?,
        12 => Body::Relay(cbor(body)?, payload),
        16 => Body::Insert(cbor(body)?, payload),
        17 => Body::Inserted(cbor(body)?),
        18 => Body::Store(cbor(body)?, payload),
        19 => Body::StoreAnswer(cbor(body)?),
        20 => Body::Fetch(cbor(body)?),
        21 => Body::FetchAnswer(cbor(body)?, payload),
        22 => Body::Extend(cbor(body)?),
        23 => Body::Extended(cbor(body)?),
        24 => Body::RangeDigest(cbor(body)?),
        25 => empty(body, Body::RangeAgreed)?,
        26 => Body::RangeListing(cbor(body)?),
        32 => empty(body, Body::Tell(payload))?,
        33 => empty(body, Body::Told(payload))?,
        40 => Body::Subscribe(cbor(body)?),
        41 => Body::Subscribed(cbor(body)?),
        42 => Body::Leave(cbor(body)?),
        43 => Body::Publication(cbor(body)?, payload),
        44 => Body::Taken(cbor(body)?),
        45 => Body::Anycast(cbor(body)?, payload),
        46 => Body::AnycastAnswer(cbor(body)?),
        48 => Body::Glacier(Bytes::copy_from_slice(body), payload),
        other => return Err(WireError::Type(other)),
    })
}

/// One CBOR item that fills the body exactly.
fn cbor<'b, T: minicbor::Decode<'b, ()>>(body: &'b [u8]) -> Result<T, WireError> {
    let mut decoder = minicbor::Decoder::new(body);
    let item = decoder.decode().map_err(|_| WireError::Body)?;
    if decoder.position() == body.len() { Ok(item) } else { Err(WireError::Body) }
}

/// A type without fields: an empty body now, and in later versions perhaps a map, which we skip.
fn empty(body: &[u8], message: Body) -> Result<Body, WireError> {
    if body.is_empty() {
        return Ok(message);
    }
    let mut decoder = minicbor::Decoder::new(body);
    decoder.skip().map_err(|_| WireError::Body)?;
    if decoder.position() == body.len() { Ok(message) } else { Err(WireError::Body) }
}
