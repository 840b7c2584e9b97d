//! The MIME tree of a message: what IMAP's BODYSTRUCTURE and section fetches need, computed once, at ingest.
//!
//! A node is one entity: the message itself, a part of a multipart, or the message inside a `message/rfc822` part.
//! It keeps the fields as written (undecoded bytes) and where its header and body lie in the whole message, so
//! that any section is a slice. [`structure_of`](super::walk::structure_of) makes the tree.
//!
//! Invariants, for any bytes whatever:
//! - `header_start <= body_start <= end <= message length`, and a child lies inside its parent's body;
//!   siblings are in order and do not overlap;
//! - a node with [`Content::Multipart`] has type `multipart` and at least one child;
//! - a node with [`Content::Message`] has type `message/rfc822` or `message/global`;
//! - at most [`PARTS_MAX`] nodes, [`DEPTH_MAX`] levels, [`STRUCTURE_BYTES_MAX`](super::limits::STRUCTURE_BYTES_MAX)
//!   bytes of text.
//!
//! In CBOR a structure is the array of its nodes in pre-order, each with its number of children; decoding it
//! checks the invariants again.

use super::limits::{DEPTH_MAX, PARTS_MAX};
use minicbor::{Decode, Encode};
use std::fmt;
use std::ops::Range;

/// One MIME entity of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Structure {
    /// Where its header section begins in the whole message.
    pub header_start: u32,
    /// Where its header section (with the final empty line) ends and its body begins.
    pub body_start: u32,
    /// Where its body ends. The line ending before a boundary belongs to the boundary.
    pub end: u32,
    /// LF characters in the body; counted for text and for embedded messages, otherwise 0.
    pub lines: u32,
    /// What its header says of it.
    pub fields: Fields,
    /// What is inside.
    pub content: Content,
}

/// What is inside an entity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// A body without further structure.
    Single,
    /// The parts of a multipart; at least one.
    Multipart(Vec<Structure>),
    /// The message that is the body of a `message/rfc822` part.
    Message(Box<Structure>),
}

/// The MIME fields of an entity, as written in its header. Nothing is decoded; bytes above 127 may occur.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Fields {
    /// Media type, such as `text`; never empty.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub kind: Vec<u8>,
    /// Media subtype, such as `plain`; never empty.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub subtype: Vec<u8>,
    /// Parameters of Content-Type, in order, quotes removed.
    #[n(2)]
    pub parameters: Vec<Parameter>,
    /// Content-ID.
    #[cbor(n(3), with = "minicbor::bytes")]
    pub id: Option<Vec<u8>>,
    /// Content-Description.
    #[cbor(n(4), with = "minicbor::bytes")]
    pub description: Option<Vec<u8>>,
    /// Content-Transfer-Encoding; `None` means 7bit.
    #[cbor(n(5), with = "minicbor::bytes")]
    pub encoding: Option<Vec<u8>>,
    /// Content-MD5.
    #[cbor(n(6), with = "minicbor::bytes")]
    pub md5: Option<Vec<u8>>,
    /// Content-Disposition.
    #[n(7)]
    pub disposition: Option<Disposition>,
    /// Content-Language, as the list it is.
    #[n(8)]
    pub languages: Vec<Language>,
    /// Content-Location.
    #[cbor(n(9), with = "minicbor::bytes")]
    pub location: Option<Vec<u8>>,
}

/// One parameter of a field.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Parameter {
    /// Its name, as written.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub name: Vec<u8>,
    /// Its value, quotes and quoting backslashes removed, otherwise as written.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub value: Vec<u8>,
}

/// Content-Disposition.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Disposition {
    /// Such as `attachment`; never empty.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub kind: Vec<u8>,
    /// Its parameters, in order.
    #[n(1)]
    pub parameters: Vec<Parameter>,
}

/// One language tag of Content-Language.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(transparent)]
pub struct Language(#[cbor(n(0), with = "minicbor::bytes")] pub Vec<u8>);

/// Why bytes are not an encoded structure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StructureError {
    /// Not the CBOR that a structure is encoded to.
    #[error("not an encoded structure")]
    Malformed,
    /// The nodes do not form a tree with a structure's invariants.
    #[error("the nodes do not form a structure")]
    BadTree,
}

impl Fields {
    /// Those of an entity whose header says nothing: `text/plain; charset=us-ascii` (RFC 2045, 5.2).
    #[must_use]
    pub fn plain_text() -> Fields {
        let charset = Parameter { name: b"charset".to_vec(), value: b"us-ascii".to_vec() };
        Fields { parameters: vec![charset], ..Fields::of("text", "plain") }
    }

    /// Those of this media type, and nothing else.
    pub(super) fn of(kind: &str, subtype: &str) -> Fields {
        Fields {
            kind: kind.as_bytes().to_vec(),
            subtype: subtype.as_bytes().to_vec(),
            parameters: Vec::new(),
            id: None,
            description: None,
            encoding: None,
            md5: None,
            disposition: None,
            languages: Vec::new(),
            location: None,
        }
    }

    /// Whether this is the media type, without regard to ASCII case.
    #[must_use]
    pub fn is(&self, kind: &str, subtype: &str) -> bool {
        self.kind.eq_ignore_ascii_case(kind.as_bytes()) && self.subtype.eq_ignore_ascii_case(subtype.as_bytes())
    }

    /// The Content-Type parameter of this name.
    #[must_use]
    pub fn parameter(&self, name: &str) -> Option<&[u8]> {
        let found = self.parameters.iter().find(|parameter| parameter.name.eq_ignore_ascii_case(name.as_bytes()));
        found.map(|parameter| &parameter.value[..])
    }

    /// Whether the transfer encoding is base64.
    #[must_use]
    pub fn is_base64(&self) -> bool {
        self.encoding.as_ref().is_some_and(|encoding| encoding.eq_ignore_ascii_case(b"base64"))
    }

    fn is_embedded_message(&self) -> bool {
        self.is("message", "rfc822") || self.is("message", "global")
    }
}

impl fmt::Debug for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // File names and descriptions are the user's mail: only the media type is shown.
        write!(f, "{}/{}", self.kind.escape_ascii(), self.subtype.escape_ascii())
    }
}

impl Structure {
    /// Where the header section lies, its final empty line included.
    #[must_use]
    pub fn header(&self) -> Range<usize> {
        self.header_start as usize..self.body_start as usize
    }

    /// Where the body lies.
    #[must_use]
    pub fn body(&self) -> Range<usize> {
        self.body_start as usize..self.end as usize
    }

    /// Octets of the body.
    #[must_use]
    pub fn size(&self) -> u32 {
        self.end - self.body_start
    }

    /// The entity's direct children: parts, or the embedded message.
    #[must_use]
    pub fn children(&self) -> &[Structure] {
        match &self.content {
            Content::Single => &[],
            Content::Multipart(parts) => parts,
            Content::Message(message) => std::slice::from_ref(message),
        }
    }

    /// The entity that an IMAP part number names (RFC 3501, 6.4.5): `1` of a message that is no multipart is the
    /// message's own body, and below a `message/rfc822` part the numbers go on inside the embedded message.
    #[must_use]
    pub fn part(&self, numbers: &[u32]) -> Option<&Structure> {
        let (first, rest) = numbers.split_first()?;
        let index = usize::try_from(*first).ok()?.checked_sub(1)?;
        let part = match &self.content {
            Content::Multipart(parts) => parts.get(index)?,
            Content::Single | Content::Message(_) if index == 0 => self,
            Content::Single | Content::Message(_) => return None,
        };
        match (&part.content, rest.is_empty()) {
            (_, true) => Some(part),
            (Content::Message(message), false) => message.part(rest),
            (Content::Multipart(_), false) => part.part(rest),
            (Content::Single, false) => None,
        }
    }

    /// Every entity in pre-order, this one first.
    #[must_use]
    pub fn entities(&self) -> Vec<&Structure> {
        let mut entities = Vec::new();
        let mut waiting = vec![self];
        while let Some(entity) = waiting.pop() {
            entities.push(entity);
            waiting.extend(entity.children().iter().rev());
        }
        entities
    }

    /// The structure as CBOR.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let nodes: Vec<Node> = self.entities().into_iter().map(Node::of).collect();
        assert!(nodes.len() <= PARTS_MAX);
        minicbor::to_vec(nodes).expect("encoding into a Vec does not fail")
    }

    /// Reads a structure and checks its invariants.
    pub fn decode(bytes: &[u8]) -> Result<Structure, StructureError> {
        let mut decoder = minicbor::Decoder::new(bytes);
        let count = decoder.array().map_err(|_| StructureError::Malformed)?.ok_or(StructureError::Malformed)?;
        if count == 0 || count > PARTS_MAX as u64 {
            return Err(StructureError::BadTree);
        }
        let mut nodes = Vec::new();
        for _ in 0..count {
            nodes.push(decoder.decode::<Node>().map_err(|_| StructureError::Malformed)?);
        }
        if decoder.position() != bytes.len() {
            return Err(StructureError::Malformed);
        }
        let mut nodes = nodes.into_iter();
        let root = tree(&mut nodes, 0)?;
        if nodes.next().is_some() { Err(StructureError::BadTree) } else { Ok(root) }
    }
}

/// One entity as it is encoded: without its children, which follow it.
#[derive(Encode, Decode)]
struct Node {
    #[n(0)]
    header_start: u32,
    #[n(1)]
    body_start: u32,
    #[n(2)]
    end: u32,
    #[n(3)]
    lines: u32,
    #[n(4)]
    children: u32,
    #[n(5)]
    fields: Fields,
}

impl Node {
    fn of(entity: &Structure) -> Node {
        Node {
            header_start: entity.header_start,
            body_start: entity.body_start,
            end: entity.end,
            lines: entity.lines,
            children: entity.children().len() as u32,
            fields: entity.fields.clone(),
        }
    }
}

/// Takes one node with all that is below it. The depth is bounded, so the recursion is.
fn tree(nodes: &mut std::vec::IntoIter<Node>, depth: usize) -> Result<Structure, StructureError> {
    let node = nodes.next().ok_or(StructureError::BadTree)?;
    let is_ordered = node.header_start <= node.body_start && node.body_start <= node.end;
    if depth > DEPTH_MAX || !is_ordered || node.fields.kind.is_empty() || node.fields.subtype.is_empty() {
        return Err(StructureError::BadTree);
    }
    let mut children = Vec::new();
    let mut at = node.body_start;
    for _ in 0..node.children {
        let child = tree(nodes, depth + 1)?;
        if child.header_start < at || child.end > node.end {
            return Err(StructureError::BadTree);
        }
        at = child.end;
        children.push(child);
    }
    let content = content_of(&node.fields, children)?;
    let Node { header_start, body_start, end, lines, fields, .. } = node;
    Ok(Structure { header_start, body_start, end, lines, fields, content })
}

fn content_of(fields: &Fields, mut children: Vec<Structure>) -> Result<Content, StructureError> {
    match (fields.kind.eq_ignore_ascii_case(b"multipart"), fields.is_embedded_message(), children.len()) {
        (true, _, 1..) => Ok(Content::Multipart(children)),
        (false, true, 1) => Ok(Content::Message(Box::new(children.remove(0)))),
        (false, false, 0) => Ok(Content::Single),
        _ => Err(StructureError::BadTree),
    }
}
