//! The text of a message as it comes after DATA: dot-unstuffing, line rules and bounds, byte by byte.
//!
//! What the client meant is what is kept: RFC 5321 §4.5.2 backwards and nothing else. The text ends at CRLF.CRLF
//! and nowhere else; a bare CR, a bare LF or a NUL makes the message illegal, never the end of it, so that what one
//! program calls text no other can call commands. An illegal or oversize message is still read to its end, without
//! being kept, so that the session goes on.

use super::limits::{DRAINED_BYTES_MAX, MEMORY_STEP_BYTES, TEXT_LINE_BYTES_MAX};
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Memory for messages, common to all connections.
#[derive(Clone)]
pub(super) struct MessageMemory {
    steps: Arc<Semaphore>,
}

/// A share of it, returned when dropped.
pub(super) struct MemoryShare {
    memory: MessageMemory,
    held: Option<OwnedSemaphorePermit>,
}

impl MessageMemory {
    pub(super) fn new(bytes: usize) -> Self {
        let steps = (bytes / MEMORY_STEP_BYTES).clamp(1, Semaphore::MAX_PERMITS);
        MessageMemory { steps: Arc::new(Semaphore::new(steps)) }
    }

    pub(super) fn share(&self) -> MemoryShare {
        MemoryShare { memory: self.clone(), held: None }
    }
}

impl MemoryShare {
    /// Whether this share covers `bytes`, now or after taking more.
    fn covers(&mut self, bytes: usize) -> bool {
        let wanted = bytes.div_ceil(MEMORY_STEP_BYTES);
        let held = self.held.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        if wanted <= held {
            return true;
        }
        let Ok(more) = u32::try_from(wanted - held) else { return false };
        let Ok(permit) = self.memory.steps.clone().try_acquire_many_owned(more) else { return false };
        match &mut self.held {
            Some(held) => held.merge(permit),
            None => self.held = Some(permit),
        }
        true
    }

    fn release(&mut self) {
        self.held = None;
    }
}

/// What is wrong with a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TextFault {
    /// A CR without LF, or an LF without CR.
    BareNewline,
    /// A NUL, which neither SMTP text nor an IMAP literal may hold.
    Nul,
    /// A line beyond [`TEXT_LINE_BYTES_MAX`].
    LineTooLong,
    /// More than a message may have.
    TooLarge,
    /// All memory for messages is in use.
    NoMemory,
}

/// How far a text is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// More must come.
    More,
    /// CRLF.CRLF was read; so many bytes of the input belonged to the text.
    Ended(usize),
    /// Refused already, and the client goes on sending beyond all bounds.
    Abandoned,
}

/// Where in a line the next byte is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    LineStart,
    Inside,
    /// After a CR that may turn out to be bare.
    Return,
    /// After a dot at a line's start, which is dropped.
    Dot,
    /// After such a dot and a CR.
    DotReturn,
}

/// The text being received. `kept` may begin with bytes of our own (the trace header).
pub(super) struct Text {
    place: Place,
    line_bytes: usize,
    kept: Vec<u8>,
    bytes_max: usize,
    drained: usize,
    fault: Option<TextFault>,
    share: MemoryShare,
}

impl Text {
    /// `prefix` stands before the text and does not count towards `bytes_max`.
    pub(super) fn new(prefix: Vec<u8>, bytes_max: usize, share: MemoryShare) -> Self {
        let bytes_max = bytes_max + prefix.len();
        Text { place: Place::LineStart, line_bytes: 0, kept: prefix, bytes_max, drained: 0, fault: None, share }
    }

    /// Takes some input.
    pub(super) fn feed(&mut self, input: &[u8]) -> Progress {
        let mut at = 0;
        while let Some(&byte) = input.get(at) {
            match (self.place, byte) {
                (Place::DotReturn, b'\n') => return Progress::Ended(at + 1),
                (Place::Return, b'\n') => {
                    self.keep(b"\r\n");
                    self.place = Place::LineStart;
                    self.line_bytes = 0;
                    at += 1;
                }
                (Place::Return | Place::DotReturn, _) => {
                    self.refuse(TextFault::BareNewline);
                    self.place = Place::Inside;
                }
                (Place::LineStart, b'.') => {
                    self.place = Place::Dot;
                    at += 1;
                }
                (Place::Dot, b'\r') => {
                    self.place = Place::DotReturn;
                    at += 1;
                }
                (Place::LineStart | Place::Dot | Place::Inside, _) => {
                    self.place = Place::Inside;
                    at += self.inside(&input[at..]);
                }
            }
        }
        if self.fault.is_none() {
            return Progress::More;
        }
        self.drained += input.len();
        if self.drained > DRAINED_BYTES_MAX { Progress::Abandoned } else { Progress::More }
    }

    /// The whole text with its prefix, and the share that pays for it; or what is wrong with it.
    pub(super) fn finish(self) -> Result<(Vec<u8>, MemoryShare), TextFault> {
        match self.fault {
            None => Ok((self.kept, self.share)),
            Some(fault) => Err(fault),
        }
    }

    /// Takes the stretch up to the next byte of significance, and that byte; at least one byte.
    fn inside(&mut self, input: &[u8]) -> usize {
        let plain = input.iter().position(|byte| matches!(byte, b'\r' | b'\n' | 0)).unwrap_or(input.len());
        self.line_bytes += plain;
        if self.line_bytes > TEXT_LINE_BYTES_MAX {
            self.refuse(TextFault::LineTooLong);
        }
        self.keep(&input[..plain]);
        match input.get(plain) {
            None => return plain,
            Some(b'\r') => self.place = Place::Return,
            Some(b'\n') => self.refuse(TextFault::BareNewline),
            Some(_) => self.refuse(TextFault::Nul),
        }
        plain + 1
    }

    fn keep(&mut self, bytes: &[u8]) {
        if self.fault.is_some() {
            return;
        }
        let length = self.kept.len() + bytes.len();
        if length > self.bytes_max {
            return self.refuse(TextFault::TooLarge);
        }
        if length > self.kept.capacity() {
            let capacity = (2 * length).max(MEMORY_STEP_BYTES).min(self.bytes_max).next_multiple_of(MEMORY_STEP_BYTES);
            if !self.share.covers(capacity) {
                return self.refuse(TextFault::NoMemory);
            }
            self.kept.reserve_exact(capacity - self.kept.len());
        }
        self.kept.extend_from_slice(bytes);
    }

    /// Remembers the first fault and gives back the memory.
    fn refuse(&mut self, fault: TextFault) {
        if self.fault.is_none() {
            self.fault = Some(fault);
            self.kept = Vec::new();
            self.share.release();
        }
    }
}

#[cfg(test)]
mod tests {
    //! Goal: any legal text comes through byte for byte; no illegal one does; only CRLF.CRLF ends a text.
    //! Method: random legal lines stuffed by a naive sender and cut at random places; hand-made smuggling attempts.
    use super::*;
    use proptest::prelude::*;

    fn memory() -> MemoryShare {
        MessageMemory::new(1 << 20).share()
    }

    /// Feeds in chunks; returns the result and what followed the text.
    fn receive(wire: &[u8], step: usize, bytes_max: usize) -> (Result<Vec<u8>, TextFault>, Vec<u8>) {
        let mut text = Text::new(Vec::new(), bytes_max, memory());
        let mut at = 0;
        for chunk in wire.chunks(step) {
            match text.feed(chunk) {
                Progress::More => at += chunk.len(),
                Progress::Ended(used) => return (text.finish().map(|(kept, _)| kept), wire[at + used..].to_vec()),
                Progress::Abandoned => panic!("abandoned"),
            }
        }
        panic!("never ended: {:?}", String::from_utf8_lossy(wire));
    }

    fn naive_sender(lines: &[Vec<u8>]) -> (Vec<u8>, Vec<u8>) {
        let (mut text, mut wire) = (Vec::new(), Vec::new());
        for line in lines {
            if line.first() == Some(&b'.') {
                wire.push(b'.');
            }
            for out in [&mut text, &mut wire] {
                out.extend_from_slice(line);
                out.extend_from_slice(b"\r\n");
            }
        }
        wire.extend_from_slice(b".\r\n");
        (text, wire)
    }

    proptest! {
        #[test]
        fn legal_lines_come_through(
            lines in proptest::collection::vec(
                proptest::collection::vec(prop_oneof![Just(b'.'), 1u8..=255].prop_filter("no newline", |b| !b"\r\n".contains(b)), 0..40),
                0..30),
            step in 1usize..64,
        ) {
            let (text, wire) = naive_sender(&lines);
            let (received, rest) = receive(&wire, step, 1 << 20);
            prop_assert_eq!(received.unwrap(), text);
            prop_assert!(rest.is_empty());
        }

        #[test]
        fn any_bytes_do_no_harm(bytes in proptest::collection::vec(prop_oneof![Just(b'\r'), Just(b'\n'), Just(b'.'), any::<u8>()], 0..300), step in 1usize..20) {
            let mut whole = Text::new(Vec::new(), 100, memory());
            let mut pieces = Text::new(Vec::new(), 100, memory());
            let at_once = whole.feed(&bytes);
            let mut before = 0;
            let mut stepwise = Progress::More;
            for chunk in bytes.chunks(step) {
                stepwise = pieces.feed(chunk);
                if let Progress::Ended(used) = stepwise {
                    stepwise = Progress::Ended(before + used);
                    break;
                }
                before += chunk.len();
            }
            prop_assert_eq!(&at_once, &stepwise);
            let end = bytes.windows(5).position(|window| window == b"\r\n.\r\n").map(|at| at + 5);
            let end = if bytes.starts_with(b".\r\n") { Some(3) } else { end };
            prop_assert_eq!(at_once, end.map_or(Progress::More, Progress::Ended));
        }
    }

    #[test]
    fn smuggling_is_neither_an_end_nor_kept() {
        for trick in ["\n.\n", "\n.\r\n", "\r.\r", "\r.\r\n", "\r\n.\n", "\r\n.\r", "\r\n.\rx", "\r\r\n", "\n"] {
            let wire = format!("Subject: x\r\n\r\nhello{trick}MAIL FROM:<admin@x>\r\n\r\n.\r\nNOOP\r\n");
            for step in [1, 2, 5, wire.len()] {
                let (received, rest) = receive(wire.as_bytes(), step, 1 << 20);
                assert_eq!(received, Err(TextFault::BareNewline), "{trick:?}");
                assert_eq!(rest, if step == wire.len() { b"NOOP\r\n".to_vec() } else { rest.clone() });
            }
        }
        assert_eq!(receive(b"a\0b\r\n.\r\n", 3, 100).0, Err(TextFault::Nul));
    }

    #[test]
    fn bounds_hold() {
        let mut long = vec![b'x'; TEXT_LINE_BYTES_MAX];
        long.extend_from_slice(b"\r\n.\r\n");
        assert!(receive(&long, 4096, 1 << 20).0.is_ok());
        long.insert(0, b'x');
        assert_eq!(receive(&long, 4096, 1 << 20).0, Err(TextFault::LineTooLong));
        assert_eq!(receive(b"12345678\r\n.\r\n", 4, 10).0.unwrap(), b"12345678\r\n");
        assert_eq!(receive(b"123456789\r\n.\r\n", 4, 10).0, Err(TextFault::TooLarge));
        assert_eq!(receive(b".\r\nQUIT", 7, 10), (Ok(Vec::new()), b"QUIT".to_vec()));
    }

    #[test]
    fn memory_is_shared_and_given_back() {
        let memory = MessageMemory::new(4 * MEMORY_STEP_BYTES);
        let line = [&[b'x'; 998][..], b"\r\n"].concat();
        let fill = |lines: usize| {
            let mut text = Text::new(Vec::new(), usize::MAX / 4, memory.share());
            (0..lines).for_each(|_| assert_eq!(text.feed(&line), Progress::More));
            text
        };
        let first = fill(100);
        assert!(first.fault.is_none());
        let second = fill(100);
        assert_eq!(second.fault, Some(TextFault::NoMemory), "no room for a second while the first lives");
        drop(first);
        assert!(fill(100).fault.is_none());
    }

    #[test]
    fn a_refused_sender_cannot_go_on_for_ever() {
        let mut text = Text::new(Vec::new(), 10, memory());
        let chunk = vec![b'x'; 1 << 20];
        let rounds = (0..1000).take_while(|_| text.feed(&chunk) == Progress::More).count();
        assert_eq!(rounds, DRAINED_BYTES_MAX >> 20);
    }
}
