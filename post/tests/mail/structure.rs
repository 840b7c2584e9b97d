//! Goal: the MIME tree is right where a message is well-formed, and keeps its invariants where it is not. Method:
//! `mail-parser` as oracle on the corpus and on generated messages; arbitrary and mutated bytes; sections cut out by hand.

use super::{Random, corpus};
use mail_parser::{MessageParser, MimeHeaders, PartType};
use post::mail::limits::{DEPTH_MAX, PARTS_MAX};
use post::mail::structure::{Content, Structure};
use post::mail::walk::structure_of;
use proptest::prelude::*;

fn check_invariants(message: &[u8]) -> Result<Structure, TestCaseError> {
    let root = structure_of(message);
    prop_assert_eq!((root.header_start, root.end as usize), (0, message.len()));
    let entities = root.entities();
    prop_assert!(entities.len() <= PARTS_MAX);
    for entity in &entities {
        prop_assert!(entity.header_start <= entity.body_start && entity.body_start <= entity.end);
        let mut at = entity.body_start;
        for child in entity.children() {
            prop_assert!(at <= child.header_start && child.end <= entity.end);
            at = child.end;
        }
        let is_multipart = entity.fields.kind.eq_ignore_ascii_case(b"multipart");
        prop_assert_eq!(is_multipart, matches!(entity.content, Content::Multipart(_)));
        prop_assert_eq!(is_multipart, !entity.children().is_empty() && !matches!(entity.content, Content::Message(_)));
    }
    let decoded = Structure::decode(&root.encode());
    prop_assert_eq!(decoded.as_ref(), Ok(&root));
    Ok(root)
}

proptest! {
    #[test]
    fn any_bytes_have_a_structure(message: Vec<u8>) {
        check_invariants(&message)?;
    }

    #[test]
    fn anything_like_mime_has_a_structure(lines in proptest::collection::vec(prop_oneof![
        Just("Content-Type: multipart/mixed; boundary=a"), Just("Content-Type: multipart/digest; boundary=\"a b\""),
        Just("Content-Type: message/rfc822"), Just("Content-Type: text/html (a(b)c\\"), Just(" ; charset=x;boundary=b"),
        Just("Content-Disposition: attachment; filename=\"a\\\"b"), Just("--a"), Just("--a--"), Just("--a b  "), Just("--b"),
        Just(""), Just(""), Just("text"), Just("Content-Language: de, en"), Just("\r"), Just("--"),
    ], 0..40), ending in prop_oneof![Just("\r\n"), Just("\n")]) {
        check_invariants(lines.join(ending).as_bytes())?;
    }

    #[test]
    fn a_damaged_encoding_is_an_error_or_keeps_the_invariants(at: prop::sample::Index, byte: u8) {
        let mut encoded = structure_of(NESTED.as_bytes()).encode();
        let at = at.index(encoded.len());
        encoded[at] = byte;
        if let Ok(structure) = Structure::decode(&encoded) {
            prop_assert_eq!(Structure::decode(&structure.encode()), Ok(structure));
        }
    }
}

#[test]
fn every_message_of_the_corpus_has_a_structure() {
    for (path, message) in corpus::messages() {
        check_invariants(&message).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }
}

const NESTED: &str = "From: a@b\r\n\
Content-Type: multipart/mixed; boundary=\"out er\"; x=\"a\\\"b\"\r\n\
Content-Language: de, en\r\n\r\n\
preamble\r\n\
--out er\r\n\
Content-Type: text/plain; charset=utf-8\r\n\
Content-ID: <1@x>\r\n\r\n\
one\r\ntwo\r\n\
--out er \r\n\
Content-Type: message/rfc822\r\nContent-Disposition: attachment; filename=m.eml\r\n\r\n\
Subject: inner\r\nContent-Type: multipart/alternative; boundary=in\r\n\r\n\
--in\r\n\r\nplain\r\n--in\r\nContent-Type: text/html\r\n\r\n<b>\r\n--in--\r\nafter\r\n\
--out er\r\n\
Content-Type: message/rfc822\r\n\r\n\
Subject: simple\r\n\r\nbody\r\n\
--out er--\r\nepilogue\r\n";

#[test]
fn sections_are_slices_of_the_message() {
    let root = structure_of(NESTED.as_bytes());
    let body = |numbers: &[u32]| root.part(numbers).map(|part| &NESTED[part.body()]);
    let header = |numbers: &[u32]| root.part(numbers).map(|part| &NESTED[part.header()]);
    assert_eq!(body(&[1]), Some("one\r\ntwo"));
    assert_eq!(header(&[1]), Some("Content-Type: text/plain; charset=utf-8\r\nContent-ID: <1@x>\r\n\r\n"));
    assert!(body(&[2]).unwrap().starts_with("Subject: inner") && body(&[2]).unwrap().ends_with("--in--\r\nafter"));
    assert_eq!(body(&[2, 1]), Some("plain"));
    assert_eq!(header(&[2, 1]), Some("\r\n"));
    assert_eq!(body(&[2, 2]), Some("<b>"));
    assert_eq!(body(&[3]), Some("Subject: simple\r\n\r\nbody"));
    assert_eq!(body(&[3, 1]), Some("body"));
    assert_eq!(header(&[3, 1]), Some("Subject: simple\r\n\r\n"));
    for absent in [&[][..], &[0], &[4], &[1, 1], &[2, 3], &[3, 2], &[2, 1, 1]] {
        assert_eq!(body(absent), None, "{absent:?}");
    }
    assert_eq!(root.fields.parameter("X"), Some(&b"a\"b"[..]));
    assert_eq!(root.fields.languages.len(), 2);
    assert_eq!(root.part(&[1]).unwrap().lines, 1);
    let disposition = root.part(&[2]).unwrap().fields.disposition.clone().unwrap();
    assert_eq!((&disposition.kind[..], &disposition.parameters[0].value[..]), (&b"attachment"[..], &b"m.eml"[..]));
    let simple = structure_of(b"Subject: s\r\n\r\nbody");
    assert_eq!(simple.part(&[1]).map(Structure::body), Some(14..18));
    assert_eq!(simple.part(&[1, 1]), None);
}

#[test]
fn an_encoded_message_is_an_opaque_attachment() {
    let part = "Content-Type: message/rfc822\r\nContent-Transfer-Encoding: BASE64\r\n\r\nVG86IHg=\r\n";
    let root = check_invariants(part.as_bytes()).unwrap();
    assert!(root.fields.is("application", "octet-stream") && root.fields.is_base64());
    assert_eq!(&part[root.body()], "VG86IHg=\r\n");
    let plain = part.replace("BASE64", "8Bit");
    assert!(matches!(check_invariants(plain.as_bytes()).unwrap().content, Content::Message(_)));
}

#[test]
fn a_part_without_any_line_keeps_its_parents_around_it() {
    // An inner multipart's only part is empty, and the outer boundary follows at once: found by the property above.
    let empty = "Content-Type: multipart/mixed; boundary=o\r\n\r\n--o\r\nContent-Type: multipart/mixed; boundary=i\r\n\r\n\
                 --i\r\n--o\r\n--o--\r\n";
    let root = check_invariants(empty.as_bytes()).unwrap();
    assert_eq!(root.part(&[1, 1]).map(|part| (part.header().len(), part.size())), Some((0, 0)));
}

#[test]
fn parameters_are_found_where_mailers_put_them() {
    let cases = [
        ("multipart/mixed\r\n\tboundary=\"b\"", "b"),
        ("multipart/mixed ; ; charset=x; boundary = b ; y=z", "b"),
        ("multipart/mixed (a; boundary=c) ;boundary=b(x)", "b(x)"),
        ("multipart/mixed; junk; boundary=\"b\\\"q\" junk", "b\"q"),
        ("multipart/mixed; BOUNDARY=\"b", "b"),
    ];
    for (field, boundary) in cases {
        let message = format!("Content-Type: {field}\r\n\r\n--{boundary}\r\n\r\nx\r\n--{boundary}--\r\n");
        let root = check_invariants(message.as_bytes()).unwrap();
        assert_eq!(root.fields.parameter("boundary"), Some(boundary.as_bytes()), "{field}");
        assert_eq!(root.children().len(), 1, "{field}");
    }
}

#[test]
fn hostile_nesting_and_numbers_stay_in_bounds() {
    let mut nested = String::new();
    for level in 0..DEPTH_MAX * 3 {
        nested += &format!("Content-Type: multipart/mixed; boundary=b{level}\r\n\r\n--b{level}\r\n");
    }
    let root = check_invariants(nested.as_bytes()).unwrap();
    assert_eq!(root.entities().len(), DEPTH_MAX + 1);
    let many =
        "Content-Type: multipart/mixed; boundary=b\r\n\r\n".to_owned() + &"--b\r\n\r\nx\r\n".repeat(PARTS_MAX * 3);
    assert_eq!(check_invariants(many.as_bytes()).unwrap().entities().len(), PARTS_MAX);
    let messages = "Content-Type: message/rfc822\r\n\r\n".repeat(DEPTH_MAX * 3);
    assert_eq!(check_invariants(messages.as_bytes()).unwrap().entities().len(), DEPTH_MAX + 1);
    let parameters = format!("Content-Type: text/plain{}\r\n\r\n", "; a=b".repeat(10_000));
    assert!(check_invariants(parameters.as_bytes()).unwrap().fields.parameters.len() <= 32);
    let long = "--b\r\nContent-Description: ".to_owned() + &"d".repeat(2_000) + "\r\n\r\n";
    let long = "Content-Type: multipart/mixed; boundary=b\r\n\r\n".to_owned() + &long.repeat(900);
    assert!(check_invariants(long.as_bytes()).unwrap().encode().len() < 512 << 10);
}

/// What both parsers say of one entity: media type and body range.
type Leaf = (String, std::ops::Range<usize>);

fn leaves(message: &[u8]) -> Vec<Leaf> {
    let root = structure_of(message);
    let single = root.entities().into_iter().filter(|entity| matches!(entity.content, Content::Single));
    let name = |entity: &Structure| {
        let (kind, subtype) = (&entity.fields.kind, &entity.fields.subtype);
        format!("{}/{}", String::from_utf8_lossy(kind), String::from_utf8_lossy(subtype)).to_lowercase()
    };
    single.map(|entity| (name(entity), entity.body())).collect()
}

/// The leaves as `mail-parser` sees them. Offsets inside an embedded message count from the whole message.
fn oracle(message: &[u8]) -> Option<Vec<Leaf>> {
    let parsed = MessageParser::default().parse(message)?;
    let mut leaves = Vec::new();
    let mut waiting = vec![&parsed];
    let mut messages = Vec::new();
    while let Some(message) = waiting.pop() {
        messages.push(message);
        for part in &message.parts {
            match &part.body {
                PartType::Multipart(_) => {}
                PartType::Message(inner) => waiting.push(inner),
                _ => {
                    let named = part
                        .content_type()
                        .map(|named| format!("{}/{}", named.c_type, named.c_subtype.as_deref().unwrap_or("plain")));
                    let name = named.unwrap_or_else(|| "text/plain".to_owned()).to_lowercase();
                    leaves.push((name, part.offset_body as usize..part.offset_end as usize));
                }
            }
        }
    }
    leaves.sort_by_key(|(_, range)| (range.start, range.end));
    Some(leaves)
}

/// Appends a random well-formed entity to `out`, and to `expected` its leaves, as it knows them: an independent record of
/// where everything is. Boundaries are never prefixes of text.
fn generated(random: &mut Random, depth: usize, embeds: bool, out: &mut String, expected: &mut Vec<Leaf>) {
    match if depth == 0 { 2 } else { random.below(4) } {
        0 | 3 => {
            let boundary = format!("=_{:016x}", random.next());
            *out += &format!("Content-Type: multipart/mixed;\r\n boundary=\"{boundary}\"\r\n\r\n");
            if random.below(2) == 0 {
                *out += "preamble\r\n";
            }
            for _ in 0..1 + random.below(4) {
                *out += &format!("--{boundary}\r\n");
                generated(random, depth - 1, embeds, out, expected);
                *out += "\r\n";
            }
            *out += &format!("--{boundary}--\r\n");
        }
        1 if embeds => {
            *out += "Content-Type: message/rfc822\r\n\r\nSubject: inner\r\n";
            generated(random, depth - 1, embeds, out, expected);
        }
        _ => {
            *out += "Content-Type: text/plain; charset=utf-8\r\n\r\n";
            let start = out.len();
            for line in 0..1 + random.below(4) {
                *out += &format!("{}line {line}", if line > 0 { "\r\n" } else { "" });
            }
            expected.push(("text/plain".to_owned(), start..out.len()));
        }
    }
}

#[test]
fn a_well_formed_message_has_the_structure_it_was_made_with() {
    let seed = 0x5eed_0001;
    println!("seed {seed:#x}");
    let (mut random, mut agreeing) = (Random(seed), 0);
    for number in 0..3_000 {
        let (mut message, mut expected) = (String::from("Subject: generated\r\n"), Vec::new());
        generated(&mut random, 5, number % 2 == 0, &mut message, &mut expected);
        assert_eq!(leaves(message.as_bytes()), expected, "{message}");
        agreeing += usize::from(oracle(message.as_bytes()) == Some(expected));
    }
    // The second oracle loses its place after embedded messages that end inside several multiparts.
    println!("mail-parser agrees on {agreeing} of 3000");
    assert!(agreeing > 2_000);
}

#[test]
fn mail_parser_agrees_on_most_of_the_corpus() {
    let mut differing = Vec::new();
    let corpus = corpus::messages();
    for (path, message) in &corpus {
        let network = String::from_utf8_lossy(message).replace("\r\n", "\n").replace('\n', "\r\n");
        if oracle(network.as_bytes()) != Some(leaves(network.as_bytes())) {
            differing.push(path.file_name().unwrap().to_string_lossy().into_owned());
        }
    }
    println!("{} of {} differ: {differing:?}", differing.len(), corpus.len());
    assert!(differing.len() * 5 < corpus.len());
}
