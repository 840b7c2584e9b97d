//! The mail of a drill: messages of mixed sizes, every one of which follows from the seed and its number, so that what was sent
//! need not be kept to be compared.
//!
//! Every fourth has an attachment of 64 KiB or more, every other of these one of a few that many mails share; every
//! tenth goes to all others. The rest are text of up to 16 KiB.

use super::fate::Dice;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::fmt::Write;

/// Mails of one drill at most.
pub const LETTERS_MAX: usize = 10_000;

/// The shortest attachment: from here on a part is stored once for all who have it.
const ATTACHMENT_BYTES_MIN: usize = 64 << 10;
/// What is drawn on top of it.
const ATTACHMENT_BYTES_MORE: usize = 192 << 10;
/// Attachments that several mails share.
const SHARED: usize = 3;
/// The longest text, before it is encoded.
const TEXT_BYTES_MAX: usize = 12 << 10;
/// Octets that make a line of 76 characters.
const LINE_BYTES: usize = 57;

/// One mail.
pub(super) struct Letter {
    /// Who sends it, by number.
    pub(super) from: usize,
    /// Who is to have it.
    pub(super) to: Vec<usize>,
    /// All of it.
    pub(super) text: Vec<u8>,
}

/// Who writes, to whom, and from which seed.
pub(super) struct Post {
    /// The users' addresses.
    pub(super) addresses: Vec<String>,
    /// The seed.
    pub(super) seed: u64,
    /// The date in every header.
    pub(super) date: String,
}

impl Post {
    /// Who sends mail number `number`, and to whom.
    pub(super) fn way(&self, number: usize) -> (usize, Vec<usize>) {
        let users = self.addresses.len();
        assert!(users > 1);
        let mut dice = Dice::new("a mail's way", self.seed.wrapping_add((number as u64) << 32));
        let from = number % users;
        let to = match number % 10 {
            9 => (0..users).filter(|&user| user != from).collect(),
            _ => vec![(from + 1 + dice.below(users - 1)) % users],
        };
        (from, to)
    }

    /// Mail number `number`.
    pub(super) fn letter(&self, number: usize) -> Letter {
        let (from, to) = self.way(number);
        let mut dice = Dice::new("a mail", self.seed.wrapping_add((number as u64) << 32));
        let recipients: Vec<&str> = to.iter().map(|&user| self.addresses[user].as_str()).collect();
        let mut text = self.header(&format!("{number}"), from, &recipients.join(", "));
        if number % 4 == 3 {
            let attachment = if number % 8 == 3 { self.shared(dice.below(SHARED)) } else { attachment(&mut dice) };
            with_attachment(&mut text, number, &attachment);
        } else {
            let length = 1 + dice.below(TEXT_BYTES_MAX);
            text.push_str("\r\n");
            encode(&dice.octets(length), &mut text);
        }
        Letter { from, to, text: text.into_bytes() }
    }

    /// A draft that `user` files by IMAP and never sends.
    pub(super) fn draft(&self, user: usize, number: usize) -> Vec<u8> {
        let mut dice = Dice::new("a draft", self.seed.wrapping_add(((user << 16 | number) as u64) << 32));
        let mut text = self.header(&format!("draft-{user}-{number}"), user, &self.addresses[user]);
        text.push_str("\r\n");
        let length = 1 + dice.below(TEXT_BYTES_MAX);
        encode(&dice.octets(length), &mut text);
        text.into_bytes()
    }

    fn header(&self, name: &str, from: usize, to: &str) -> String {
        format!(
            "From: {}\r\nTo: {to}\r\nSubject: Drill {name}\r\nDate: {}\r\nMessage-ID: <{name}.{}@drill.invalid>\r\n",
            self.addresses[from], self.date, self.seed
        )
    }

    fn shared(&self, number: usize) -> Vec<u8> {
        attachment(&mut Dice::new("a shared attachment", self.seed.wrapping_add((number as u64) << 32)))
    }
}

/// The number of the mail that a message is, by its Message-ID; nothing for drafts and strangers.
pub(super) fn number_of(message: &[u8]) -> Option<usize> {
    let end = message.windows(4).position(|window| window == b"\r\n\r\n")?;
    let header = std::str::from_utf8(&message[..end]).ok()?;
    let name = header.split("\r\n").find_map(|line| line.strip_prefix("Message-ID: <"))?;
    name.split_once('.')?.0.parse().ok()
}

fn attachment(dice: &mut Dice) -> Vec<u8> {
    let length = ATTACHMENT_BYTES_MIN + dice.below(ATTACHMENT_BYTES_MORE);
    dice.octets(length)
}

fn with_attachment(text: &mut String, number: usize, attachment: &[u8]) {
    let boundary = format!("=_drill_{number}");
    // A String takes everything that is written to it.
    let _ = write!(
        text,
        "MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=\"{boundary}\"\r\n\r\n--{boundary}\r\n\
         Content-Type: text/plain; charset=utf-8\r\n\r\nAttached: {} octets.\r\n--{boundary}\r\n\
         Content-Type: application/octet-stream; name=\"drill.bin\"\r\nContent-Disposition: attachment\r\n\
         Content-Transfer-Encoding: base64\r\n\r\n",
        attachment.len()
    );
    encode(attachment, text);
    let _ = write!(text, "--{boundary}--\r\n");
}

/// Lines of base64: none of them begins with a dot, and the last ends like the others.
fn encode(octets: &[u8], text: &mut String) {
    for line in octets.chunks(LINE_BYTES) {
        STANDARD.encode_string(line, text);
        text.push_str("\r\n");
    }
}

#[cfg(test)]
mod tests {
    //! Goal: mail as the story says, the same for the same seed, and mail to another parser. Method: a hundred of them, read by
    //! mail-parser.
    use super::*;
    use mail_parser::{MessageParser, MimeHeaders};
    use std::collections::BTreeSet;

    fn post(seed: u64) -> Post {
        let addresses = ["alice", "bob", "carol", "dave"].map(|name| format!("{name}@epost.test")).to_vec();
        Post { addresses, seed, date: "Sun, 22 Nov 2026 10:00:00 +0000".to_owned() }
    }

    #[test]
    fn a_hundred() {
        let (one, other) = (post(1), post(2));
        let mut attachments = Vec::new();
        let mut sizes = BTreeSet::new();
        for number in 0..100 {
            let letter = one.letter(number);
            assert_eq!(letter.text, one.letter(number).text);
            assert_ne!(letter.text, other.letter(number).text);
            assert!(!letter.to.contains(&letter.from) && !letter.to.is_empty());
            assert_eq!(letter.to.len(), if number % 10 == 9 { 3 } else { 1 });
            assert_eq!(number_of(&letter.text), Some(number));
            assert_eq!(number_of(&[b"Received: x\r\n", &letter.text[..]].concat()), Some(number), "behind a trace");
            assert!(letter.text.ends_with(b"\r\n") && !letter.text.windows(3).any(|three| three == b"\r\n."));
            sizes.insert(letter.text.len());
            let message = MessageParser::default().parse(&letter.text).expect("a mail");
            assert_eq!(message.subject(), Some(&*format!("Drill {number}")));
            attachments.extend(message.attachments().map(|part| {
                assert_eq!(part.content_type().map(|kind| kind.ctype()), Some("application"));
                part.contents().to_vec()
            }));
        }
        assert_eq!(attachments.len(), 25);
        assert!(attachments.iter().all(|part| part.len() >= ATTACHMENT_BYTES_MIN));
        let distinct: BTreeSet<&Vec<u8>> = attachments.iter().collect();
        assert!(distinct.len() <= 12 + SHARED, "{} of 25 are distinct", distinct.len());
        assert!(sizes.len() > 60 && sizes.first() < Some(&4096), "{sizes:?}");
    }

    #[test]
    fn drafts_are_no_letters() {
        let post = post(1);
        assert_eq!(number_of(&post.draft(1, 2)), None);
        assert_ne!(post.draft(1, 2), post.draft(2, 1));
        assert_eq!(number_of(b"no header at all"), None);
    }
}
