//! Header fields of a message, as bytes; and the closed list of changes that mail may undergo on its way.
//!
//! Nothing here decodes or rewrites a value: fields are found, and whole fields are removed or prepended.
//! A line ends with LF, with or without CR before it; a line that begins with a space or tab continues the field
//! before it; the section ends after its first empty line, or with the message.
//!
//! The closed list (the only ways in which a fetched message may differ from the one submitted):
//!
//! 1. `Bcc` and `Resent-Bcc` are removed at submission ([`strip_bcc`]);
//! 2. a trace is prepended at each recipient ([`HeaderEdit::at_delivery`], [`prepend_trace`]);
//! 3. fields that only a receiving system may write are removed at delivery ([`forged_fields`]).

use super::limits::{STRIPPED_FIELDS_MAX, TRACE_BYTES_MAX};
use bytes::{Bytes, BytesMut};
use std::ops::Range;

/// One header field, with where it lies in the bytes it was read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field<'a> {
    /// The name without the colon and without white space before it; empty for a line that is no field.
    pub name: &'a [u8],
    /// Everything after the colon, folded lines included, without the last line's ending.
    pub value: &'a [u8],
    /// The whole field, its last line's ending included.
    pub range: Range<usize>,
}

impl Field<'_> {
    /// Whether the field has this name, without regard to ASCII case.
    #[must_use]
    pub fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name.as_bytes())
    }
}

/// Where the line that begins at `at` ends, its LF included.
pub(super) fn line_end(bytes: &[u8], at: usize) -> usize {
    bytes[at..].iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |offset| at + offset + 1)
}

/// The line without its ending.
pub(super) fn without_ending(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// Whether the line is empty but for its ending, and has one.
pub(super) fn is_empty_line(line: &[u8]) -> bool {
    line == b"\r\n" || line == b"\n"
}

/// Length of the message's header section, its final empty line included.
#[must_use]
pub fn section_length(message: &[u8]) -> usize {
    let mut at = 0;
    while at < message.len() {
        let end = line_end(message, at);
        if is_empty_line(&message[at..end]) {
            return end;
        }
        at = end;
    }
    message.len()
}

/// The fields of a header section, in order. Stops at the first empty line.
pub fn fields(section: &[u8]) -> impl Iterator<Item = Field<'_>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        if at >= section.len() {
            return None;
        }
        let start = at;
        let mut end = line_end(section, at);
        if is_empty_line(&section[start..end]) {
            return None;
        }
        while matches!(section.get(end), Some(b' ' | b'\t')) {
            end = line_end(section, end);
        }
        at = end;
        Some(field(section, start..end))
    })
}

fn field(section: &[u8], range: Range<usize>) -> Field<'_> {
    let bytes = without_ending(&section[range.clone()]);
    match bytes.iter().position(|byte| *byte == b':') {
        Some(colon) => Field { name: bytes[..colon].trim_ascii(), value: &bytes[colon + 1..], range },
        None => Field { name: &[], value: bytes, range },
    }
}

/// A change of a message's header that is kept beside its reference and made when it is fetched, so that the
/// message's own objects stay shared among its recipients.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderEdit {
    /// Bytes put before the message; whole fields, each with its line ending.
    prepended: Bytes,
    /// Fields left out: ascending, disjoint ranges of the stored message.
    removed: Vec<Range<u32>>,
}

/// Why bytes or ranges are not an acceptable header edit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EditError {
    /// The ranges overlap, are not ascending, or reach beyond the message; or there are too many.
    #[error("the removed ranges are not legal for the message")]
    BadRanges,
    /// The trace is longer than a trace may be, or is not made of whole lines.
    #[error("the trace is not made of whole header fields within the bound")]
    BadTrace,
}

impl HeaderEdit {
    /// The edit made at delivery: `trace` (whole fields, each with its line ending; may be empty) is prepended,
    /// and the `removed` ranges are left out.
    pub fn new(trace: Bytes, removed: Vec<Range<u32>>) -> Result<HeaderEdit, EditError> {
        let is_whole = trace.is_empty() || (trace.ends_with(b"\n") && section_length(&trace) == trace.len());
        let starts_well = !matches!(trace.first(), Some(b' ' | b'\t' | b'\r' | b'\n'));
        if trace.len() > TRACE_BYTES_MAX || !is_whole || !starts_well || trace.ends_with(b"\n\r\n") {
            return Err(EditError::BadTrace);
        }
        let is_ascending = removed.windows(2).all(|pair| pair[0].end <= pair[1].start);
        if removed.len() > STRIPPED_FIELDS_MAX || !is_ascending || removed.iter().any(|range| range.start >= range.end)
        {
            return Err(EditError::BadRanges);
        }
        Ok(HeaderEdit { prepended: trace, removed })
    }

    /// An edit that prepends the trace line `line` (without ending) and strips the fields that `message` must
    /// not bring along.
    pub fn at_delivery(message: &[u8], line: &str) -> Result<HeaderEdit, EditError> {
        let mut trace = BytesMut::from(line.as_bytes());
        if !trace.is_empty() {
            trace.extend_from_slice(ending_of(message));
        }
        HeaderEdit::new(trace.freeze(), forged_fields(message)?)
    }

    /// Whether the edit changes nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.prepended.is_empty() && self.removed.is_empty()
    }

    /// What is put before the message.
    #[must_use]
    pub fn prepended(&self) -> &Bytes {
        &self.prepended
    }

    /// What is left out.
    #[must_use]
    pub fn removed(&self) -> &[Range<u32>] {
        &self.removed
    }

    /// Length of the message after the edit, if the edit is legal for a message of `length` bytes.
    pub fn edited_length(&self, length: usize) -> Result<usize, EditError> {
        if self.removed.last().is_some_and(|range| range.end as usize > length) {
            return Err(EditError::BadRanges);
        }
        let removed: usize = self.removed.iter().map(|range| (range.end - range.start) as usize).sum();
        Ok(length - removed + self.prepended.len())
    }

    /// The message after the edit.
    pub fn apply(&self, message: Bytes) -> Result<Bytes, EditError> {
        let length = self.edited_length(message.len())?;
        if self.is_empty() {
            return Ok(message);
        }
        let mut edited = BytesMut::with_capacity(length);
        edited.extend_from_slice(&self.prepended);
        let mut at = 0;
        for range in &self.removed {
            edited.extend_from_slice(&message[at..range.start as usize]);
            at = range.end as usize;
        }
        edited.extend_from_slice(&message[at..]);
        assert_eq!(edited.len(), length);
        Ok(edited.freeze())
    }
}

/// The message without its `Bcc` and `Resent-Bcc` fields: done once, at submission.
#[must_use]
pub fn strip_bcc(message: &Bytes) -> Bytes {
    let section = &message[..section_length(message)];
    let blind: Vec<Range<usize>> =
        fields(section).filter(|field| field.is("Bcc") || field.is("Resent-Bcc")).map(|field| field.range).collect();
    if blind.is_empty() {
        return message.clone();
    }
    let mut stripped = BytesMut::with_capacity(message.len());
    let mut at = 0;
    for range in blind {
        stripped.extend_from_slice(&message[at..range.start]);
        at = range.end;
    }
    stripped.extend_from_slice(&message[at..]);
    stripped.freeze()
}

/// The message with one trace line (`line` has no ending; the message's own is used) put before it.
pub fn prepend_trace(message: &Bytes, line: &str) -> Result<Bytes, EditError> {
    let mut trace = BytesMut::from(line.as_bytes());
    trace.extend_from_slice(ending_of(message));
    HeaderEdit::new(trace.freeze(), Vec::new())?.apply(message.clone())
}

/// The ranges of fields that only the receiving system may write: results of authentication and ePOST's own tags.
/// Too many of them are refused rather than left in.
pub fn forged_fields(message: &[u8]) -> Result<Vec<Range<u32>>, EditError> {
    let section = &message[..section_length(message)];
    let mut forged = Vec::new();
    for field in fields(section).filter(is_reserved) {
        if forged.len() == STRIPPED_FIELDS_MAX {
            return Err(EditError::BadRanges);
        }
        let start = u32::try_from(field.range.start).map_err(|_| EditError::BadRanges)?;
        let end = u32::try_from(field.range.end).map_err(|_| EditError::BadRanges)?;
        forged.push(start..end);
    }
    Ok(forged)
}

fn is_reserved(field: &Field<'_>) -> bool {
    const TAG: &[u8] = b"X-ePOST-";
    let is_tag = field.name.get(..TAG.len()).is_some_and(|prefix| prefix.eq_ignore_ascii_case(TAG));
    is_tag || field.is("Authentication-Results")
}

/// The line ending that the message itself uses.
fn ending_of(message: &[u8]) -> &'static [u8] {
    let first = &message[..line_end(message, 0)];
    if first.ends_with(b"\n") && !first.ends_with(b"\r\n") { b"\n" } else { b"\r\n" }
}

#[cfg(test)]
mod tests {
    //! Goal: the closed list of changes does what it says and nothing else. Method: examples, and a property
    //! that whatever is removed is exactly the named fields.
    use super::*;
    use proptest::prelude::*;

    const MESSAGE: &[u8] = b"From: a\r\nBCC : x@y,\r\n\tz@w\r\nTo: b\r\nresent-bcc: q\r\n\r\nBcc: in the body\r\n";

    #[test]
    fn bcc_goes_with_its_folded_lines_and_only_from_the_header() {
        let stripped = strip_bcc(&Bytes::from_static(MESSAGE));
        assert_eq!(&stripped[..], b"From: a\r\nTo: b\r\n\r\nBcc: in the body\r\n");
    }

    #[test]
    fn forged_results_and_tags_go_at_delivery_and_a_trace_comes() {
        let message = Bytes::from_static(
            b"Authentication-Results: x;\n dkim=pass\nSubject: s\nx-epost-secure: yes\nX-Epostal: stays\n\nbody",
        );
        let edit = HeaderEdit::at_delivery(&message, "Received: by epost").unwrap();
        let edited = edit.apply(message.clone()).unwrap();
        assert_eq!(&edited[..], b"Received: by epost\nSubject: s\nX-Epostal: stays\n\nbody");
        assert_eq!(edit.edited_length(message.len()).unwrap(), edited.len());
    }

    #[test]
    fn a_trace_that_would_end_the_header_is_refused() {
        for trace in ["A: b\r\n\r\n", "A: b", "\r\n", " A: b\r\n", "A: b\n\nC: d\n"] {
            assert_eq!(HeaderEdit::new(Bytes::from(trace), Vec::new()), Err(EditError::BadTrace), "{trace:?}");
        }
        let beyond = HeaderEdit::new(Bytes::new(), vec![0..2, 4..9]).unwrap();
        assert_eq!(beyond.apply(Bytes::from_static(b"12345678")), Err(EditError::BadRanges));
        for ranges in [vec![4..4, 6..7], vec![4..6, 5..9], vec![5..9, 0..2]] {
            assert_eq!(HeaderEdit::new(Bytes::new(), ranges), Err(EditError::BadRanges));
        }
    }

    proptest! {
        #[test]
        fn fields_tile_the_section(message: Vec<u8>) {
            let section = &message[..section_length(&message)];
            let mut at = 0;
            for field in fields(section) {
                prop_assert_eq!(field.range.start, at);
                at = field.range.end;
            }
            prop_assert!(at == section.len() || is_empty_line(&section[at..]));
        }

        #[test]
        fn stripping_leaves_no_blind_recipient(header in "(Bcc|To|bcc|X)(: ?[a-z]{0,3})(\r?\n( [a-z]\r?\n)?(BCC|Y): q){0,4}\r?\n\r?\n") {
            let stripped = strip_bcc(&Bytes::from(header));
            prop_assert!(!fields(&stripped).any(|field| field.is("bcc")));
        }
    }
}
