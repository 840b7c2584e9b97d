//! The notice a sender finds in his inbox when a mail could not be delivered (RFC 3464, from the null sender).
//!
//! Written only when the outbox gives up; while it still tries, nothing is said. A notice is itself never
//! answered with a notice: it has no sender.

use mail_parser::DateTime;
use std::fmt::Write;

/// Most octets of the original header section that are quoted.
const QUOTED_BYTES_MAX: usize = 16 << 10;

/// What went wrong, for the person and for the program reading the notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// The recipient's node could not be reached within the outbox's lifetime.
    Expired,
    /// The recipient does not exist, or no longer.
    NoSuchRecipient,
    /// The recipient's node refused the mail.
    Refused,
}

impl Reason {
    fn status(self) -> &'static str {
        match self {
            Reason::Expired => "4.4.7",
            Reason::NoSuchRecipient => "5.1.1",
            Reason::Refused => "5.7.1",
        }
    }

    /// The reason in words.
    pub(crate) fn sentence(self) -> &'static str {
        match self {
            Reason::Expired => "the recipient's node could not be reached in time",
            Reason::NoSuchRecipient => "there is no such recipient",
            Reason::Refused => "the recipient's node refused the message",
        }
    }
}

/// What a notice is about.
pub(crate) struct Undelivered<'a> {
    /// The mail domain of this node, named as the reporting party.
    pub domain: &'a str,
    /// Whose mail it was; the notice goes to him.
    pub sender: &'a str,
    /// Who did not get it.
    pub recipient: &'a str,
    /// The header section of the mail.
    pub original_headers: &'a [u8],
    /// Why.
    pub reason: Reason,
    /// Now, in seconds since the Unix epoch.
    pub now_s: i64,
    /// Tells this notice from every other; drawn at random.
    pub id: [u8; 16],
}

impl Undelivered<'_> {
    /// The notice as a complete message with CRLF line ends.
    #[must_use]
    pub(crate) fn render(&self) -> Vec<u8> {
        let id = self.id.iter().fold(String::new(), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x}");
            hex
        });
        let (domain, recipient) = (self.domain, self.recipient);
        let boundary = format!("=_{id}");
        let mut notice = format!(
            "From: Mail delivery <postmaster@{domain}>\r\n\
             To: <{}>\r\n\
             Subject: Undelivered mail\r\n\
             Date: {}\r\n\
             Message-ID: <{id}@{domain}>\r\n\
             Auto-Submitted: auto-replied\r\n\
             MIME-Version: 1.0\r\n\
             Content-Type: multipart/report; report-type=delivery-status; boundary=\"{boundary}\"\r\n\
             \r\n\
             --{boundary}\r\n\
             Content-Type: text/plain; charset=utf-8\r\n\
             \r\n\
             Your mail to <{recipient}> was not delivered: {}.\r\n\
             It will not be tried again.\r\n\
             \r\n\
             --{boundary}\r\n\
             Content-Type: message/delivery-status\r\n\
             \r\n\
             Reporting-MTA: dns; {domain}\r\n\
             \r\n\
             Final-Recipient: rfc822; {recipient}\r\n\
             Action: failed\r\n\
             Status: {}\r\n\
             \r\n\
             --{boundary}\r\n\
             Content-Type: text/rfc822-headers\r\n\
             \r\n",
            self.sender,
            DateTime::from_timestamp(self.now_s).to_rfc822(),
            self.reason.sentence(),
            self.reason.status(),
        )
        .into_bytes();
        notice.extend_from_slice(quotable(self.original_headers));
        notice.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
        notice
    }
}

/// The header section, cut at a line end when it is too long to quote.
fn quotable(headers: &[u8]) -> &[u8] {
    if headers.len() <= QUOTED_BYTES_MAX {
        return headers;
    }
    let cut = headers[..QUOTED_BYTES_MAX].windows(2).rposition(|pair| pair == b"\r\n").map_or(0, |at| at + 2);
    &headers[..cut]
}

#[cfg(test)]
mod tests {
    //! Goal: another program reads the notice as the report it is. Method: mail-parser as the independent reader.
    use super::*;
    use mail_parser::{MessageParser, MimeHeaders};

    #[test]
    fn an_independent_parser_reads_the_report() {
        let headers = b"Subject: hello\r\nFrom: alice@epost.test\r\n\r\n";
        let notice = Undelivered {
            domain: "epost.test",
            sender: "alice@epost.test",
            recipient: "carol@epost.test",
            original_headers: headers,
            reason: Reason::Expired,
            now_s: 1_790_000_000,
            id: [7; 16],
        }
        .render();
        let message = MessageParser::default().parse(&notice).expect("a message");
        assert_eq!(message.parts.len(), 4);
        let report = message.content_type().expect("content type");
        assert_eq!(report.attribute("report-type"), Some("delivery-status"));
        assert!(message.parts[1].text_contents().is_some_and(|text| text.contains("carol@epost.test")));
        assert!(message.date().is_some_and(|date| date.to_timestamp() == 1_790_000_000));
    }

    #[test]
    fn long_headers_are_cut_at_a_line_end() {
        let headers = b"X-Filler: 0123456789\r\n".repeat(4000);
        let quoted = quotable(&headers);
        assert!(quoted.len() <= QUOTED_BYTES_MAX);
        assert!(quoted.ends_with(b"\r\n"));
        assert_eq!(quotable(&[b'x'; QUOTED_BYTES_MAX + 1]), b"");
    }
}
