//! What has been read from a client and not yet looked at: one fixed buffer, cut into command lines.
//!
//! A command line ends with CRLF and holds no other CR and no other LF. Anything else still ends at its LF, so that
//! a client of bad manners gets an answer, but it is an error, never a command: two programs that disagree on where
//! a line ends are how mail is smuggled. Bytes are wiped when taken, since some of them are passwords.

use super::limits::{COMMAND_LINE_BYTES_MAX, INPUT_BYTES, SKIPPED_BYTES_MAX};
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt};
use zeroize::{Zeroize, Zeroizing};

/// A line in command mode.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// Without its CRLF.
    Command(Zeroizing<Vec<u8>>),
    /// A bare CR or bare LF is in it.
    BareNewline,
    /// Longer than [`COMMAND_LINE_BYTES_MAX`].
    TooLong,
    /// So long that no end is worth waiting for.
    Endless,
}

/// The buffer. Invariant: `start <= end <= bytes.len()`; everything outside `start..end` is zero.
pub(super) struct Input {
    bytes: Box<[u8]>,
    start: usize,
    end: usize,
    /// How much of an over-long line is gone already; zero outside such a line.
    skipped: usize,
}

impl Input {
    pub(super) fn new() -> Self {
        Input { bytes: vec![0; INPUT_BYTES].into_boxed_slice(), start: 0, end: 0, skipped: 0 }
    }

    /// Reads more; `false` at the end of the stream. There must be room, which there is after every
    /// [`Input::line`] that returned nothing, and after everything was consumed.
    pub(super) async fn fill<R: AsyncRead + Unpin>(&mut self, stream: &mut R) -> io::Result<bool> {
        self.compact();
        assert!(self.end < self.bytes.len());
        let count = stream.read(&mut self.bytes[self.end..]).await?;
        self.end += count;
        Ok(count > 0)
    }

    /// The next whole line, if it is here.
    pub(super) fn line(&mut self) -> Option<Line> {
        let Some(feed) = self.pending().iter().position(|&byte| byte == b'\n') else {
            return self.skip_if_too_long();
        };
        let raw = Zeroizing::new(self.pending()[..=feed].to_vec());
        self.consume(feed + 1);
        if std::mem::take(&mut self.skipped) + raw.len() > COMMAND_LINE_BYTES_MAX {
            return Some(Line::TooLong);
        }
        let Some(text) = raw.strip_suffix(b"\r\n") else { return Some(Line::BareNewline) };
        if text.contains(&b'\r') {
            return Some(Line::BareNewline);
        }
        Some(Line::Command(Zeroizing::new(text.to_vec())))
    }

    /// Without an LF in sight: nothing yet, unless the line is past its bound, when its bytes go.
    fn skip_if_too_long(&mut self) -> Option<Line> {
        let waiting = self.end - self.start;
        if waiting == 0 || self.skipped + waiting <= COMMAND_LINE_BYTES_MAX {
            return None;
        }
        self.skipped += waiting;
        self.consume(waiting);
        (self.skipped > SKIPPED_BYTES_MAX).then_some(Line::Endless)
    }

    /// What is here.
    pub(super) fn pending(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    /// Takes `count` bytes from the front, wiping them.
    pub(super) fn consume(&mut self, count: usize) {
        assert!(count <= self.end - self.start);
        self.bytes[self.start..self.start + count].zeroize();
        self.start += count;
        if self.start == self.end {
            self.start = 0;
            self.end = 0;
        }
    }

    /// Forgets everything, and says how much it was.
    pub(super) fn discard(&mut self) -> usize {
        let count = self.end - self.start;
        self.consume(count);
        self.skipped = 0;
        count
    }

    fn compact(&mut self) {
        if self.start > 0 {
            let (start, end) = (self.start, self.end);
            self.bytes.copy_within(start..end, 0);
            self.start = 0;
            self.end = end - start;
            self.bytes[self.end..end].zeroize();
        }
    }
}

impl Drop for Input {
    fn drop(&mut self) {
        self.bytes.zeroize();
    }
}

#[cfg(test)]
mod tests {
    //! Goal: lines are cut where RFC 5321 cuts them, however the bytes arrive, and nothing else becomes a command.
    //! Method: hand-written cases, fed whole and byte by byte; both must agree.
    use super::*;

    async fn lines(wire: &[u8], step: usize) -> Vec<Line> {
        let mut input = Input::new();
        let mut found = Vec::new();
        for chunk in wire.chunks(step) {
            let mut chunk = chunk;
            while !chunk.is_empty() {
                assert!(input.fill(&mut chunk).await.unwrap());
                while let Some(line) = input.line() {
                    found.push(line);
                }
            }
        }
        found
    }

    fn command(text: &str) -> Line {
        Line::Command(Zeroizing::new(text.as_bytes().to_vec()))
    }

    #[tokio::test]
    async fn cut_the_same_whatever_the_chunks() {
        let wire = b"NOOP\r\n\r\nMAIL FROM:<a@b>\nQUIT\r\r\nA\rB\r\nlast\r\nunended";
        let expected =
            [command("NOOP"), command(""), Line::BareNewline, Line::BareNewline, Line::BareNewline, command("last")];
        for step in [1, 2, 3, 7, wire.len()] {
            assert_eq!(lines(wire, step).await, expected, "chunks of {step}");
        }
    }

    #[tokio::test]
    async fn over_long_lines_are_skipped_whole() {
        let mut wire = vec![b'x'; COMMAND_LINE_BYTES_MAX * 5];
        wire.extend_from_slice(b"\r\nNOOP\r\n");
        assert_eq!(lines(&wire, 1000).await, [Line::TooLong, command("NOOP")]);
        let mut at_bound = vec![b'x'; COMMAND_LINE_BYTES_MAX - 2];
        at_bound.extend_from_slice(b"\r\n");
        assert!(matches!(lines(&at_bound, 100).await[..], [Line::Command(_)]));
        at_bound.insert(0, b'x');
        assert_eq!(lines(&at_bound, 100).await, [Line::TooLong]);
    }

    #[tokio::test]
    async fn an_endless_line_is_given_up() {
        let wire = vec![b'x'; SKIPPED_BYTES_MAX + 2 * INPUT_BYTES];
        assert!(lines(&wire, 4096).await.contains(&Line::Endless));
    }

    #[tokio::test]
    async fn taken_bytes_are_wiped() {
        let mut input = Input::new();
        input.fill(&mut &b"AUTH PLAIN secret\r\nNO"[..]).await.unwrap();
        assert!(input.line().is_some());
        assert!(!input.bytes.windows(6).any(|window| window == b"secret"));
        assert_eq!(input.discard(), 2);
        assert!(input.bytes.iter().all(|&byte| byte == 0));
    }
}
