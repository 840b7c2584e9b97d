//! Goal: commands are cut out the same however the octets arrive, and nothing a client sends makes the framer
//! hold more than its bounds or take literal octets for commands. Method: fixed dialogues cut at every octet,
//! random octets, and the bounds passed one at a time.

use super::*;
use proptest::prelude::*;

const BOUNDS: FrameBounds = FrameBounds { line: 200, literal: 50, messages: true };

/// What a whole input is cut into, fed in the given pieces. Messages up to 1000 octets are accepted.
fn cut(pieces: &[&[u8]]) -> Vec<String> {
    let mut framer = Framer::new();
    let mut seen = Vec::new();
    let mut pieces = pieces.iter();
    loop {
        match framer.step(BOUNDS) {
            Step::NeedMore => match pieces.next() {
                Some(piece) => framer.buffer.extend_from_slice(piece),
                None => return seen,
            },
            Step::Continue => seen.push("+".to_owned()),
            Step::Message { octets, waits } if octets <= 1000 => {
                framer.accept_message();
                seen.push(format!("message {octets} {waits}"));
            }
            Step::Message { .. } => framer.refuse_message(FrameError::MessageTooLarge),
            Step::Command(framed) => {
                let text = String::from_utf8_lossy(&framed.text).into_owned();
                let message = framed.message.map(|message| String::from_utf8_lossy(&message).into_owned());
                seen.push(format!("{text:?} {message:?}"));
            }
            Step::Refused { tag, error } => {
                seen.push(format!("refused {:?} {error:?}", tag.map(|tag| tag.to_string())));
                if error == FrameError::Hopeless {
                    return seen;
                }
            }
        }
        assert!(framer.text.len() <= limits::COMMAND_BYTES_MAX + 2);
    }
}

fn cut_whole(input: &[u8]) -> Vec<String> {
    cut(&[input])
}

#[test]
fn same_frames_wherever_the_stream_is_cut() {
    let input: &[u8] = b"a NOOP\r\nb LOGIN {5}\r\nalice {4+}\r\np}\r\n\r\nc APPEND {5+}\r\nDrafts (\\Seen) {12}\r\n\
        d NOOP\r\n{3}\n\r\ne APPEND INBOX {3+}\r\nx\r\n\r\nf SEARCH TEXT {0}\r\n\r\n\r\nbare\ng NOOP {9\r\nh APPEND X {2000+}\r\n";
    let mut input = input.to_vec();
    input.extend_from_slice(&[b'z'; 2000]);
    input.extend_from_slice(b"\r\ni APPEND X {2000}\r\nj NOOP\r\n");
    let whole = cut_whole(&input);
    assert_eq!(whole[0], "\"a NOOP\" None");
    assert_eq!(whole[1], "+");
    assert_eq!(whole[2], "\"b LOGIN {5}\\r\\nalice {4+}\\r\\np}\\r\\n\" None");
    assert_eq!(whole[3], "message 12 true");
    assert_eq!(whole[4], "\"c APPEND {5+}\\r\\nDrafts (\\\\Seen) {12}\\r\\n\" Some(\"d NOOP\\r\\n{3}\\n\")");
    assert_eq!(whole[5], "message 3 false");
    assert_eq!(whole[6], "\"e APPEND INBOX {3+}\\r\\n\" Some(\"x\\r\\n\")");
    assert_eq!(&whole[7..9], ["+", "\"f SEARCH TEXT {0}\\r\\n\" None"]);
    assert_eq!(whole[9], "\"\" None");
    assert_eq!(whole[10], "refused Some(\"bare\") BareLf");
    assert_eq!(whole[11], "\"g NOOP {9\" None");
    assert_eq!(whole[12], "refused Some(\"h\") MessageTooLarge");
    assert_eq!(whole[13], "refused Some(\"i\") MessageTooLarge");
    assert_eq!(whole[14], "\"j NOOP\" None");
    assert_eq!(whole.len(), 15);
    for at in 0..=input.len() {
        let (before, after) = input.split_at(at);
        assert_eq!(cut(&[before, after]), whole, "cut at {at}");
    }
    let single: Vec<&[u8]> = input.chunks(1).collect();
    assert_eq!(cut(&single), whole, "octet by octet");
}

#[test]
fn bounds_are_kept_and_the_stream_stays_in_step() {
    let long = "x".repeat(500);
    let literal = "y".repeat(51);
    let cases: [(String, &str); 8] = [
        (format!("a NOOP {long}\r\n"), "refused Some(\"a\") LineTooLong"),
        (format!("a X {long} {{5+}}\r\nb B\r\n\r\n"), "refused Some(\"a\") LineTooLong"),
        (format!("a X {long} {{5}}\r\n"), "refused Some(\"a\") LineTooLong"),
        (format!("a X {{51+}}\r\n{literal}\r\n"), "refused Some(\"a\") LiteralTooLong"),
        ("a X {51}\r\n".to_owned(), "refused Some(\"a\") LiteralTooLong"),
        ("a X\0Y\r\n".to_owned(), "refused Some(\"a\") BadOctet"),
        ("a X\rY\r\n".to_owned(), "refused Some(\"a\") BadOctet"),
        (format!("{long}{long}\r\n"), "refused None LineTooLong"),
    ];
    for (input, refusal) in cases {
        let input = format!("{input}z NOOP\r\n");
        assert_eq!(cut_whole(input.as_bytes()), [refusal, "\"z NOOP\" None"], "{input:?}");
        let single: Vec<&[u8]> = input.as_bytes().chunks(1).collect();
        assert_eq!(cut(&single), [refusal, "\"z NOOP\" None"], "{input:?} octet by octet");
    }
    assert_eq!(cut_whole(b"a X {9999999999+}\r\n"), ["refused Some(\"a\") Hopeless"]);
    assert_eq!(cut_whole(b"a X {99999999999999999999999+}\r\nb NOOP\r\n").len(), 2, "no number, no literal");
}

#[test]
fn only_an_append_with_a_folder_brings_a_message() {
    assert!(announces_message(b"a append INBOX {5}\r\n"));
    assert!(announces_message(b"a APPEND {5}\r\nINBOX {5}\r\n"));
    assert!(!announces_message(b"a APPEND {5}\r\n"));
    assert!(!announces_message(b"a LOGIN x {5}\r\n"));
    assert!(!announces_message(b"APPEND INBOX {5}\r\n"));
}

#[test]
fn answers_to_a_continuation() {
    let mut framer = Framer::new();
    assert_eq!(framer.line(10).unwrap(), None);
    framer.buffer.extend_from_slice(b"DONE\r\nx\nmuch too long");
    assert_eq!(framer.line(10).unwrap().unwrap().as_slice(), b"DONE");
    assert_eq!(framer.line(10), Err(FrameError::BareLf));
    assert_eq!(framer.line(10), Err(FrameError::LineTooLong));
}

proptest! {
    #[test]
    fn random_octets_never_panic_and_cutting_does_not_matter(
        input in prop::collection::vec(prop_oneof![
            Just(b"\r\n".to_vec()), Just(b"\n".to_vec()), Just(b"a APPEND b {3+}\r\n".to_vec()),
            Just(b" {4}\r\n".to_vec()), Just(b"{7+}\r\n".to_vec()), Just(b"t ".to_vec()),
            prop::collection::vec(any::<u8>(), 0..60),
        ], 0..30),
        cuts in prop::collection::vec(1usize..40, 1..30),
    ) {
        let input = input.concat();
        let mut pieces: Vec<&[u8]> = Vec::new();
        let mut rest = input.as_slice();
        for cut in cuts.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (piece, after) = rest.split_at((*cut).min(rest.len()));
            pieces.push(piece);
            rest = after;
        }
        prop_assert_eq!(cut(&pieces), cut_whole(&input));
    }
}
