//! Where one command ends and the next begins.
//!
//! A command is a line, unless the line ends with `{5}` or `{5+}`: then so many octets follow, and another line.
//! [`Framer`] takes octets as they come and says what to do next; it does no I/O and knows nothing of grammar but
//! this. It bounds everything before it is held: lines, short literals, and the one long literal there can be,
//! the message of an APPEND, which the caller must accept before a byte of it is kept.
//!
//! A refused command is still read to its end, as far as the client sends it without being asked, so that the
//! octets of a literal never pass for commands.
//!
//! Text is wiped once it has been handed out, because it may hold a password.

use super::command::Tag;
use super::{limits, parse};
use bytes::{Buf, Bytes, BytesMut};
use zeroize::{Zeroize, Zeroizing};

/// Why a command was refused before it was parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// A line ends with LF alone.
    #[error("bare LF")]
    BareLf,
    /// A NUL, or a CR that ends no line.
    #[error("NUL or bare CR")]
    BadOctet,
    /// A line is longer than the bound.
    #[error("line too long")]
    LineTooLong,
    /// A literal that is no message is longer than the bound.
    #[error("literal too long")]
    LiteralTooLong,
    /// The command as a whole passes its bounds.
    #[error("command too long")]
    CommandTooLong,
    /// The message is larger than the account takes.
    #[error("message too large")]
    MessageTooLarge,
    /// Too many messages are being received at once.
    #[error("too many messages at once, try again later")]
    NoRoom,
    /// A literal so long that it is not even worth skipping. The session ends.
    #[error("literal far too long")]
    Hopeless,
}

/// One command as it came: its text, with short literals in place, and the message of an APPEND.
pub struct Framed {
    /// Everything but the message and the last line end.
    pub text: Zeroizing<Vec<u8>>,
    /// The octets of the long literal, if there was one.
    pub message: Option<Bytes>,
}

/// What to do next.
pub enum Step {
    /// Receive more octets into [`Framer::buffer`].
    NeedMore,
    /// Ask the client for its literal, and call again.
    Continue,
    /// A message of so many octets is announced: call [`Framer::accept_message`] or [`Framer::refuse_message`].
    Message {
        /// Its length.
        octets: u64,
        /// Whether the client waits to be asked for it.
        waits: bool,
    },
    /// A whole command.
    Command(Framed),
    /// A command was refused; the input stands after it.
    Refused {
        /// Its tag, if it had one.
        tag: Option<Tag>,
        /// Why.
        error: FrameError,
    },
}

/// What a client may send at this moment.
#[derive(Clone, Copy, Debug)]
pub struct FrameBounds {
    /// Octets of a line.
    pub line: usize,
    /// Octets of a short literal.
    pub literal: usize,
    /// Whether an APPEND may bring its message.
    pub messages: bool,
}

#[derive(Clone, Copy)]
enum State {
    Line,
    Literal { octets: usize },
    Announced { octets: u64, waits: bool },
    Message { octets: usize },
    Skip { octets: u64 },
    LongLine,
    Over,
}

/// Cuts a stream into commands.
pub struct Framer {
    /// Octets received and not yet used. Fill it when told [`Step::NeedMore`].
    pub buffer: BytesMut,
    searched: usize,
    state: State,
    text: Zeroizing<Vec<u8>>,
    literals: usize,
    message: Option<Bytes>,
    refused: Option<FrameError>,
}

/// Octets kept of a line too long, enough to see whether it announces a literal.
const ANNOUNCEMENT_BYTES_MAX: usize = 24;

impl Default for Framer {
    fn default() -> Self {
        Self::new()
    }
}

impl Framer {
    /// A framer at the beginning of a stream.
    #[must_use]
    pub fn new() -> Self {
        Self {
            buffer: BytesMut::new(),
            searched: 0,
            state: State::Line,
            text: Zeroizing::default(),
            literals: 0,
            message: None,
            refused: None,
        }
    }

    /// Whether nothing has been received of a next command.
    #[must_use]
    pub fn is_between_commands(&self) -> bool {
        matches!(self.state, State::Line) && self.text.is_empty() && self.buffer.is_empty()
    }

    /// How many octets it would be good to make room for before receiving.
    #[must_use]
    pub fn wanted(&self) -> usize {
        match self.state {
            State::Message { octets } => octets.saturating_sub(self.buffer.len()).max(1),
            _ => limits::READ_BYTES,
        }
    }

    /// Goes one step on.
    pub fn step(&mut self, bounds: FrameBounds) -> Step {
        loop {
            match self.state {
                State::Line => match self.find_line_end() {
                    Some(end) => {
                        if let Some(step) = self.take_line(end, bounds) {
                            return step;
                        }
                    }
                    None if self.buffer.len() > bounds.line => {
                        self.refuse(FrameError::LineTooLong);
                        self.state = State::LongLine;
                    }
                    None => return Step::NeedMore,
                },
                State::LongLine => match self.find_line_end() {
                    Some(end) => {
                        self.consume((end + 1).saturating_sub(ANNOUNCEMENT_BYTES_MAX));
                        self.state = State::Line;
                    }
                    None => {
                        self.consume(self.buffer.len().saturating_sub(ANNOUNCEMENT_BYTES_MAX));
                        return Step::NeedMore;
                    }
                },
                State::Literal { octets } if self.buffer.len() < octets => return Step::NeedMore,
                State::Literal { octets } => {
                    self.keep_text(octets);
                    self.state = State::Line;
                }
                State::Announced { octets, waits } => return Step::Message { octets, waits },
                State::Message { octets } if self.buffer.len() < octets => return Step::NeedMore,
                State::Message { octets } => self.take_message(octets),
                State::Skip { octets } => {
                    let here = octets.min(self.buffer.len() as u64);
                    self.consume(here as usize);
                    if here < octets {
                        self.state = State::Skip { octets: octets - here };
                        return Step::NeedMore;
                    }
                    self.state = State::Line;
                }
                State::Over => return self.finish(),
            }
        }
    }

    /// Lets the announced message come in. If the client waits for it, ask it.
    pub fn accept_message(&mut self) {
        if let State::Announced { octets, .. } = self.state {
            self.state = State::Message { octets: octets as usize };
        }
    }

    /// Lets it not; [`Framer::step`] will say [`Step::Refused`] when the client has got rid of it.
    pub fn refuse_message(&mut self, error: FrameError) {
        if let State::Announced { octets, waits } = self.state {
            self.refuse(error);
            self.state = self.after_refused_literal(octets, waits);
        }
    }

    /// A line that is no command: an answer to `+`. `None` until it is whole.
    ///
    /// # Errors
    /// As for a command's line; a line too long is then skipped by the next [`Framer::step`].
    pub fn line(&mut self, bytes_max: usize) -> Result<Option<Zeroizing<Vec<u8>>>, FrameError> {
        let Some(end) = self.find_line_end() else {
            return if self.buffer.len() > bytes_max { Err(FrameError::LineTooLong) } else { Ok(None) };
        };
        let checked = self.check_line(end, bytes_max);
        let text = Zeroizing::new(self.buffer.get(..end.saturating_sub(1)).unwrap_or_default().to_vec());
        self.consume(end + 1);
        checked.map(|()| Some(text))
    }

    fn find_line_end(&mut self) -> Option<usize> {
        let unsearched = self.buffer.get(self.searched..).unwrap_or_default();
        let found = unsearched.iter().position(|&octet| octet == b'\n').map(|offset| self.searched + offset);
        self.searched = found.unwrap_or(self.buffer.len());
        found
    }

    fn check_line(&self, end: usize, bytes_max: usize) -> Result<(), FrameError> {
        let line = self.buffer.get(..end).unwrap_or_default();
        let Some((&b'\r', content)) = line.split_last() else { return Err(FrameError::BareLf) };
        if content.iter().any(|octet| matches!(octet, 0 | b'\r')) {
            return Err(FrameError::BadOctet);
        }
        if content.len() > bytes_max { Err(FrameError::LineTooLong) } else { Ok(()) }
    }

    /// Takes the line that ends with the LF at `end`. A step, if the command is over or the client waits.
    fn take_line(&mut self, end: usize, bounds: FrameBounds) -> Option<Step> {
        let checked = self.check_line(end, bounds.line);
        let announced = self.buffer.get(..end.saturating_sub(1)).and_then(announced_literal);
        if let Err(error) = checked {
            self.refuse(error);
        }
        // A line that does not end as lines do announces nothing.
        let announced = if checked == Err(FrameError::BareLf) { None } else { announced };
        if self.refused.is_none() && self.text.len() + end > limits::COMMAND_BYTES_MAX {
            self.refuse(FrameError::CommandTooLong);
        }
        if self.refused.is_some() {
            self.remember_tag();
            self.consume(end + 1);
            self.state = match announced {
                Some((octets, waits)) => self.after_refused_literal(octets, waits),
                None => State::Over,
            };
            return None;
        }
        let Some((octets, waits)) = announced else {
            self.keep_text(end - 1);
            self.consume(2);
            return Some(self.finish());
        };
        self.keep_text(end + 1);
        if bounds.messages && self.message.is_none() && announces_message(&self.text) {
            self.state = State::Announced { octets, waits };
            return None;
        }
        self.literals += 1;
        let command_octets = self.text.len() as u64 + octets;
        if octets > bounds.literal as u64 {
            self.refuse(FrameError::LiteralTooLong);
        } else if self.literals > limits::LITERALS_MAX || command_octets > limits::COMMAND_BYTES_MAX as u64 {
            self.refuse(FrameError::CommandTooLong);
        } else {
            self.state = State::Literal { octets: octets as usize };
            return waits.then_some(Step::Continue);
        }
        self.state = self.after_refused_literal(octets, waits);
        None
    }

    fn after_refused_literal(&mut self, octets: u64, waits: bool) -> State {
        if waits {
            return State::Over;
        }
        if octets > limits::SKIP_BYTES_MAX {
            self.refused = Some(FrameError::Hopeless);
            return State::Over;
        }
        State::Skip { octets }
    }

    fn refuse(&mut self, error: FrameError) {
        // The first fault is the one to name.
        self.refused.get_or_insert(error);
        self.remember_tag();
    }

    /// Keeps of a refused command what may hold its tag, and nothing else.
    fn remember_tag(&mut self) {
        if self.text.is_empty() {
            let tag = self.buffer.iter().take(limits::TAG_BYTES_MAX + 1);
            let tag: Vec<u8> = tag.take_while(|octet| !matches!(octet, b'\r' | b'\n')).copied().collect();
            self.text.extend_from_slice(&tag);
        }
    }

    fn keep_text(&mut self, octets: usize) {
        self.text.extend_from_slice(self.buffer.get(..octets).unwrap_or_default());
        self.consume(octets);
    }

    fn consume(&mut self, octets: usize) {
        if let Some(used) = self.buffer.get_mut(..octets) {
            used.zeroize();
        }
        self.buffer.advance(octets.min(self.buffer.len()));
        self.searched = self.searched.saturating_sub(octets);
    }

    fn take_message(&mut self, octets: usize) {
        let message = self.buffer.split_to(octets).freeze();
        // What follows goes to a buffer of its own, or the message's memory would live as long as the session.
        self.buffer = BytesMut::from(&self.buffer[..]);
        self.searched = 0;
        self.message = Some(message);
        self.state = State::Line;
    }

    fn finish(&mut self) -> Step {
        let text = std::mem::take(&mut self.text);
        let message = self.message.take();
        self.literals = 0;
        self.state = State::Line;
        match self.refused.take() {
            Some(error) => Step::Refused { tag: parse::tag_of(&text), error },
            None => Step::Command(Framed { text, message }),
        }
    }
}

/// The literal announced at a line's end: its length, and whether the client waits to be asked.
fn announced_literal(line: &[u8]) -> Option<(u64, bool)> {
    let inner = line.strip_suffix(b"}")?;
    let (inner, waits) = match inner.strip_suffix(b"+") {
        Some(inner) => (inner, false),
        None => (inner, true),
    };
    let digits = inner.iter().rev().take_while(|octet| octet.is_ascii_digit()).count();
    let (before, digits) = inner.split_at(inner.len() - digits);
    if before.last() != Some(&b'{') || digits.is_empty() || digits.len() > 19 {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok().map(|octets| (octets, waits))
}

/// Whether a command so far, up to and with a literal's announcement, is an APPEND that already has its folder.
fn announces_message(text: &[u8]) -> bool {
    let Some(tag_end) = text.iter().position(|&octet| octet == b' ') else { return false };
    let arguments = text.get(tag_end..).unwrap_or_default();
    const APPEND: &[u8] = b" APPEND ";
    let is_append = arguments.get(..APPEND.len()).is_some_and(|word| word.eq_ignore_ascii_case(APPEND));
    // The folder itself may be the literal: then the brace is the first thing after the command's name,
    // and what announces the message comes on a later line.
    let arguments = arguments.get(APPEND.len()..).unwrap_or_default();
    let last_brace = arguments.iter().rposition(|&octet| octet == b'{');
    is_append && last_brace.is_some_and(|at| at > 0)
}

#[cfg(test)]
#[path = "frame_tests.rs"]
mod tests;
