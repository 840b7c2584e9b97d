//! The MIME walker: from the bytes of a message to its [`Structure`], in one pass over its lines.
//!
//! It is made for hostile input: any bytes give a structure with its invariants, in time linear in the message
//! but for lines that begin with `--`, which are compared with at most [`DEPTH_MAX`] boundaries.
//! What it cannot make sense of it calls by its safest name:
//!
//! - a `multipart` without a usable boundary, or in which none of its boundaries follows, is `text/plain`
//!   (RFC 2045, 5.2), so that the user sees what there is;
//! - what is nested deeper than [`DEPTH_MAX`] or beyond [`PARTS_MAX`] entities is `application/octet-stream`,
//!   or stays inside its parent's range;
//! - a `message/rfc822` in base64 or quoted-printable (RFC 2046, 5.2.1, forbids it, some send it) is
//!   `application/octet-stream`: its lines are no message until they are decoded;
//! - a boundary line is `--boundary`, optionally `--`, then white space only; inner boundaries win over equal outer ones,
//!   and an outer boundary ends everything inside it.
//!
//! What it does not do: decode encoded words or RFC 2231 continuations, or look inside encoded bodies.

use super::header::{Field, fields, is_empty_line, line_end, without_ending};
use super::limits::{
    BOUNDARY_BYTES_MAX, DEPTH_MAX, MESSAGE_BYTES_MAX, PARAMETERS_MAX, PARTS_MAX, STRUCTURE_BYTES_MAX, TEXT_BYTES_MAX,
    TOKEN_BYTES_MAX,
};
use super::structure::{Content, Disposition, Fields, Language, Parameter, Structure};

/// The MIME tree of a message.
///
/// # Panics
/// If the message is 4 GiB or longer; callers check it against [`MESSAGE_BYTES_MAX`] when they receive it.
#[must_use]
pub fn structure_of(message: &[u8]) -> Structure {
    assert!(message.len() < u32::MAX as usize, "checked against {MESSAGE_BYTES_MAX} on receipt");
    let mut walker = Walker { message, at: 0, boundaries: Vec::new(), entities: 0, text_left: STRUCTURE_BYTES_MAX };
    let (structure, stop) = walker.entity(0, DefaultType::Text);
    assert!(matches!(stop, Stop::End));
    assert!(structure.end as usize == message.len());
    structure
}

/// The media type of an entity that names none.
#[derive(Clone, Copy)]
enum DefaultType {
    /// `text/plain`.
    Text,
    /// `message/rfc822`, inside `multipart/digest`.
    Message,
}

/// Why the lines of an entity came to an end.
#[derive(Clone, Copy)]
enum Stop {
    /// The message ended.
    End,
    /// A boundary line of the multipart at this level, beginning at `line`.
    Boundary { level: usize, closes: bool, line: usize },
}

struct Walker<'a> {
    message: &'a [u8],
    /// Start of the next line.
    at: usize,
    /// Boundaries of the multiparts that are open, outermost first.
    boundaries: Vec<Vec<u8>>,
    entities: usize,
    /// Bytes of text that may still be kept.
    text_left: usize,
}

impl Walker<'_> {
    fn entity(&mut self, depth: usize, default: DefaultType) -> (Structure, Stop) {
        self.entities += 1;
        let header_start = self.at;
        let early = self.header();
        let body_start = match early {
            Some(Stop::Boundary { line, .. }) => self.before_ending(line).max(header_start),
            Some(Stop::End) | None => self.at,
        };
        let mut fields = self.fields(&self.message[header_start..body_start], default);
        let (content, stop) = match early {
            Some(stop) => (Content::Single, stop),
            None => self.content(&fields, depth),
        };
        let end = match stop {
            Stop::End => self.message.len(),
            Stop::Boundary { line, .. } => self.before_ending(line).max(body_start).max(end_of_children(&content)),
        };
        name_safely(&mut fields, &content, depth);
        let is_counted = fields.kind.eq_ignore_ascii_case(b"text") || matches!(content, Content::Message(_));
        let lines = if is_counted { count_lines(&self.message[body_start..end]) } else { 0 };
        let structure = Structure {
            header_start: header_start as u32,
            body_start: body_start as u32,
            end: end as u32,
            lines,
            fields,
            content,
        };
        (structure, stop)
    }

    /// Reads the lines of a header section. `Some` if the entity ends before its empty line.
    fn header(&mut self) -> Option<Stop> {
        loop {
            if self.at == self.message.len() {
                return Some(Stop::End);
            }
            let start = self.at;
            self.at = line_end(self.message, start);
            let line = &self.message[start..self.at];
            if is_empty_line(line) {
                return None;
            }
            if let Some(stop) = self.boundary(start) {
                return Some(stop);
            }
        }
    }

    fn content(&mut self, fields: &Fields, depth: usize) -> (Content, Stop) {
        let may_nest = depth < DEPTH_MAX && self.entities < PARTS_MAX;
        if may_nest && fields.kind.eq_ignore_ascii_case(b"multipart") {
            let boundary = fields.parameter("boundary").unwrap_or_default();
            if !boundary.is_empty() && boundary.len() <= BOUNDARY_BYTES_MAX {
                let default = if fields.is("multipart", "digest") { DefaultType::Message } else { DefaultType::Text };
                return self.multipart(boundary.to_vec(), depth, default);
            }
        }
        if may_nest && !is_encoded(fields) && (fields.is("message", "rfc822") || fields.is("message", "global")) {
            let (message, stop) = self.entity(depth + 1, DefaultType::Text);
            return (Content::Message(Box::new(message)), stop);
        }
        (Content::Single, self.skip())
    }

    fn multipart(&mut self, boundary: Vec<u8>, depth: usize, default: DefaultType) -> (Content, Stop) {
        let own_level = self.boundaries.len();
        self.boundaries.push(boundary);
        let mut parts = Vec::new();
        let mut stop = self.skip();
        loop {
            match stop {
                Stop::Boundary { level, closes: false, .. } if level == own_level => {
                    if self.entities < PARTS_MAX {
                        let (part, next) = self.entity(depth + 1, default);
                        parts.push(part);
                        stop = next;
                    } else {
                        stop = self.skip();
                    }
                }
                Stop::Boundary { level, closes: true, .. } if level == own_level => {
                    self.boundaries.pop();
                    stop = self.skip();
                    break;
                }
                Stop::Boundary { .. } | Stop::End => {
                    self.boundaries.pop();
                    break;
                }
            }
        }
        assert_eq!(self.boundaries.len(), own_level);
        let content = if parts.is_empty() { Content::Single } else { Content::Multipart(parts) };
        (content, stop)
    }

    /// Passes over lines up to the next boundary line, or the end.
    fn skip(&mut self) -> Stop {
        if self.boundaries.is_empty() {
            self.at = self.message.len();
        }
        while self.at < self.message.len() {
            let start = self.at;
            self.at = line_end(self.message, start);
            if let Some(stop) = self.boundary(start) {
                return stop;
            }
        }
        Stop::End
    }

    /// Whether the line from `start` to `self.at` is a boundary line of an open multipart, innermost first.
    fn boundary(&self, start: usize) -> Option<Stop> {
        let line = self.message[start..self.at].strip_prefix(b"--")?;
        let line = line.trim_ascii_end();
        let stop = |level, closes| Stop::Boundary { level, closes, line: start };
        self.boundaries.iter().enumerate().rev().find_map(|(level, boundary)| {
            match line.strip_prefix(&boundary[..])? {
                b"" => Some(stop(level, false)),
                b"--" => Some(stop(level, true)),
                _ => None,
            }
        })
    }

    /// Where the line ending just before `line` begins.
    fn before_ending(&self, line: usize) -> usize {
        let before = &self.message[..line];
        without_ending(before).len()
    }

    /// What the header says of its entity. The first field of each name counts.
    fn fields(&mut self, header: &[u8], default: DefaultType) -> Fields {
        let mut said = match default {
            DefaultType::Text => Fields::plain_text(),
            DefaultType::Message => Fields::of("message", "rfc822"),
        };
        let mut has_type = false;
        for field in fields(header) {
            if field.is("Content-Type") {
                if !has_type && let Some((kind, subtype, parameters)) = self.media_type(&field) {
                    (said.kind, said.subtype, said.parameters) = (kind, subtype, parameters);
                }
                has_type = true;
            } else if field.is("Content-Disposition") && said.disposition.is_none() {
                said.disposition = self.disposition(&field);
            } else if field.is("Content-Language") && said.languages.is_empty() {
                said.languages = self.languages(&field);
            } else if let Some(kept) = text_field(&mut said, &field)
                && kept.is_none()
            {
                *kept = self.text(&field);
            }
        }
        said
    }

    fn media_type(&mut self, field: &Field<'_>) -> Option<(Vec<u8>, Vec<u8>, Vec<Parameter>)> {
        let mut value = Value { bytes: field.value, at: 0 };
        let media = value.word();
        let slash = media.iter().position(|byte| *byte == b'/')?;
        let (kind, subtype) = (media[..slash].trim_ascii(), media[slash + 1..].trim_ascii());
        let is_token = |token: &[u8]| !token.is_empty() && token.len() <= TOKEN_BYTES_MAX && token.is_ascii();
        if !is_token(kind) || !is_token(subtype) {
            return None;
        }
        let (kind, subtype) = (kind.to_vec(), subtype.to_vec());
        Some((kind, subtype, self.parameters(&mut value)))
    }

    fn disposition(&mut self, field: &Field<'_>) -> Option<Disposition> {
        let mut value = Value { bytes: field.value, at: 0 };
        let kind = value.word();
        if kind.is_empty() || kind.len() > TOKEN_BYTES_MAX || !kind.is_ascii() {
            return None;
        }
        Some(Disposition { kind, parameters: self.parameters(&mut value) })
    }

    fn parameters(&mut self, value: &mut Value<'_>) -> Vec<Parameter> {
        let mut parameters = Vec::new();
        while parameters.len() < PARAMETERS_MAX
            && let Some((name, value)) = value.parameter()
        {
            let is_kept = !name.is_empty() && name.len() <= TOKEN_BYTES_MAX && name.is_ascii();
            if is_kept && let Some(value) = self.keep(value, name.len()) {
                parameters.push(Parameter { name, value });
            }
        }
        parameters
    }

    fn languages(&mut self, field: &Field<'_>) -> Vec<Language> {
        let tags = field.value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
        let tags = tags.filter(|tag| !tag.is_empty() && tag.len() <= TOKEN_BYTES_MAX).take(PARAMETERS_MAX);
        tags.filter_map(|tag| self.keep(tag.to_vec(), 0)).map(Language).collect()
    }

    fn text(&mut self, field: &Field<'_>) -> Option<Vec<u8>> {
        let mut unfolded = field.value.trim_ascii().to_vec();
        unfolded.retain(|byte| !matches!(byte, b'\r' | b'\n'));
        unfolded.truncate(TEXT_BYTES_MAX);
        if unfolded.is_empty() { None } else { self.keep(unfolded, 0) }
    }

    /// Accounts for text that is kept; `None` when it is too long or the structure holds enough.
    fn keep(&mut self, text: Vec<u8>, more: usize) -> Option<Vec<u8>> {
        if text.len() > TEXT_BYTES_MAX {
            return None;
        }
        self.text_left = self.text_left.checked_sub(text.len() + more)?;
        Some(text)
    }
}

/// Where the text of this field is kept, if it is a plain text field of an entity.
fn text_field<'f>(said: &'f mut Fields, field: &Field<'_>) -> Option<&'f mut Option<Vec<u8>>> {
    let places = [
        ("Content-ID", &mut said.id),
        ("Content-Description", &mut said.description),
        ("Content-Transfer-Encoding", &mut said.encoding),
        ("Content-MD5", &mut said.md5),
        ("Content-Location", &mut said.location),
    ];
    places.into_iter().find(|(name, _)| field.is(name)).map(|(_, place)| place)
}

/// Whether the body is in an encoding that hides its lines.
fn is_encoded(fields: &Fields) -> bool {
    let plain: [&[u8]; 3] = [b"7bit", b"8bit", b"binary"];
    let is_plain = |encoding: &Vec<u8>| plain.iter().any(|plain| encoding.eq_ignore_ascii_case(plain));
    !fields.encoding.as_ref().is_none_or(is_plain)
}

/// Makes the media type agree with what was found inside.
fn name_safely(fields: &mut Fields, content: &Content, depth: usize) {
    if !matches!(content, Content::Single) {
        return;
    }
    let is_multipart = fields.kind.eq_ignore_ascii_case(b"multipart");
    let is_message = fields.is("message", "rfc822") || fields.is("message", "global");
    let safe = match (is_multipart, is_message) {
        (true, _) if depth < DEPTH_MAX => Fields::plain_text(),
        (true, _) | (_, true) => Fields::of("application", "octet-stream"),
        (false, false) => return,
    };
    (fields.kind, fields.subtype, fields.parameters) = (safe.kind, safe.subtype, safe.parameters);
}

/// An empty part directly before a boundary line has no line ending to give to it: it ends where the line begins.
fn end_of_children(content: &Content) -> usize {
    match content {
        Content::Single => 0,
        Content::Multipart(parts) => parts.last().map_or(0, |part| part.end as usize),
        Content::Message(message) => message.end as usize,
    }
}

fn count_lines(body: &[u8]) -> u32 {
    body.iter().filter(|byte| **byte == b'\n').count() as u32
}

/// Reads the value of a structured field: words, comments, quoted strings, parameters.
struct Value<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Value<'_> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    /// Passes over white space, line endings and (nested) comments.
    fn blank(&mut self) {
        let mut nesting = 0usize;
        while let Some(byte) = self.peek() {
            match byte {
                b' ' | b'\t' | b'\r' | b'\n' => {}
                b'(' => nesting += 1,
                b')' if nesting > 0 => nesting -= 1,
                b'\\' if nesting > 0 => self.at += 1,
                _ if nesting > 0 => {}
                _ => return,
            }
            self.at += 1;
        }
        self.at = self.bytes.len();
    }

    /// Everything up to white space, `;` or the end.
    fn word(&mut self) -> Vec<u8> {
        self.blank();
        let start = self.at;
        while !matches!(self.peek(), None | Some(b' ' | b'\t' | b'\r' | b'\n' | b';')) {
            self.at += 1;
        }
        self.bytes[start..self.at].to_vec()
    }

    /// The next `; name=value`, also where the semicolon is forgotten; an empty name for anything else.
    fn parameter(&mut self) -> Option<(Vec<u8>, Vec<u8>)> {
        self.blank();
        if self.peek()? == b';' {
            self.at += 1;
            self.blank();
        }
        self.peek()?;
        let start = self.at;
        while !matches!(self.peek(), None | Some(b' ' | b'\t' | b'\r' | b'\n' | b';' | b'=')) {
            self.at += 1;
        }
        let name = self.bytes[start..self.at].to_vec();
        self.blank();
        if self.peek() != Some(b'=') {
            return Some((Vec::new(), Vec::new()));
        }
        self.at += 1;
        self.blank();
        let value = if self.peek() == Some(b'"') { self.quoted() } else { self.word() };
        Some((name, value))
    }

    /// A quoted string; one that is not closed ends with the field.
    fn quoted(&mut self) -> Vec<u8> {
        let mut value = Vec::new();
        self.at += 1;
        while let Some(byte) = self.peek() {
            self.at += 1;
            match byte {
                b'"' => break,
                b'\\' => {
                    value.extend(self.peek());
                    self.at = (self.at + 1).min(self.bytes.len());
                }
                b'\r' | b'\n' => {}
                _ => value.push(byte),
            }
        }
        value
    }
}
