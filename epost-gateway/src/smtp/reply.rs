//! Replies: a code, an enhanced status code (RFC 2034), and text for a person.

use std::borrow::Cow;

/// One reply, possibly of several lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reply {
    code: u16,
    status: &'static str,
    lines: Vec<Cow<'static, str>>,
}

impl Reply {
    /// A one-line reply. `status` is empty where RFC 2034 §4 has none: greeting, EHLO, and all 3xx.
    pub(super) fn new(code: u16, status: &'static str, text: impl Into<Cow<'static, str>>) -> Self {
        assert!((200..=599).contains(&code));
        assert!(status.is_empty() || status.as_bytes()[0] as u16 == b'0' as u16 + code / 100);
        Reply { code, status, lines: vec![text.into()] }
    }

    /// The same reply with one more line.
    pub(super) fn and(mut self, text: impl Into<Cow<'static, str>>) -> Self {
        self.lines.push(text.into());
        self
    }

    /// The three-digit code.
    pub(super) fn code(&self) -> u16 {
        self.code
    }

    /// Whether the client did something wrong in form, as against being refused.
    pub(super) fn is_protocol_error(&self) -> bool {
        matches!(self.code, 500..=504 | 555)
    }

    /// Appends the reply as sent.
    pub(super) fn render(&self, out: &mut Vec<u8>) {
        for (index, line) in self.lines.iter().enumerate() {
            assert!(!line.contains(['\r', '\n']));
            let separator = if index + 1 == self.lines.len() { ' ' } else { '-' };
            out.extend_from_slice(format!("{}{separator}", self.code).as_bytes());
            if !self.status.is_empty() {
                out.extend_from_slice(self.status.as_bytes());
                out.push(b' ');
            }
            out.extend_from_slice(line.as_bytes());
            out.extend_from_slice(b"\r\n");
        }
    }
}

#[cfg(test)]
mod tests {
    //! Goal: the bytes of RFC 5321 §4.2.1 and RFC 2034 §4. Method: literal examples.
    use super::Reply;

    fn rendered(reply: Reply) -> String {
        let mut out = Vec::new();
        reply.render(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn one_line_and_many() {
        assert_eq!(rendered(Reply::new(250, "2.1.0", "Sender ok")), "250 2.1.0 Sender ok\r\n");
        let ehlo = Reply::new(250, "", "gateway.example").and("PIPELINING").and("SIZE 10");
        assert_eq!(rendered(ehlo), "250-gateway.example\r\n250-PIPELINING\r\n250 SIZE 10\r\n");
        assert_eq!(rendered(Reply::new(551, "5.1.6", "a").and("b")), "551-5.1.6 a\r\n551 5.1.6 b\r\n");
    }
}
