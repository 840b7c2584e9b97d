//! Goal: keys are true of the messages RFC 3501 says, and a verdict without the text never contradicts the one
//! with it. Method: a few messages searched by hand; random keys judged both ways against plain two-valued logic.

use super::*;
use crate::imap::command::Command;
use crate::imap::selected::tests::entry_of;
use post::mail::view::FolderView;
use proptest::prelude::*;
use std::sync::Arc;

const MESSAGES: [&str; 3] = [
    "Date: Mon, 7 Feb 1994 21:52:25 -0800\r\nFrom: Fred Foobar <foobar@Blurdybloop.COM>\r\nSubject: afternoon meeting\r\n\
     To: mooch@owatagu.siam.edu\r\n\r\nHello Joe\r\n",
    "Date: Tue, 8 Feb 1994 01:00:00 +0500\r\nFrom: a@b\r\nSubject: =?utf-8?q?Gr=C3=BC=C3=9Fe?= aus\r\n =?iso-8859-1?q?_K=F6ln?=\r\n\
     Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n\r\nw4RwZmVsIHVuZCBCaXJuZW4=\r\n",
    "Subject: outer\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: message/rfc822\r\n\r\n\
     Subject: innermost\r\n\r\nnested text\r\n--b\r\nContent-Type: application/octet-stream\r\n\r\nbinary\r\n--b--\r\n",
];

fn entries() -> Vec<Entry> {
    let mut entries: Vec<Entry> =
        MESSAGES.iter().enumerate().map(|(at, message)| entry_of(10 * (at as u32 + 1), message.as_bytes())).collect();
    entries[0].flags.seen = true;
    entries[1].flags.flagged = true;
    entries[1].flags.keywords.insert("Work".to_owned());
    entries[0].internal_date_s = 760_000_000; // 31 January 1994
    entries[1].internal_date_s = 760_700_000; // 8 February 1994
    entries[2].internal_date_s = 770_000_000; // 27 May 1994
    entries
}

fn key(text: &str) -> SearchKey {
    let command = crate::imap::parse::command(format!("a SEARCH {text}").as_bytes(), None).unwrap().command;
    let Command::Search { key, .. } = command else { panic!("a search") };
    key
}

fn numbering() -> Numbering {
    let entries = entries().into_iter().map(Arc::new).collect();
    Numbering::new(&Arc::new(FolderView { uid_validity: 1, uid_next: 31, highest_modseq: 1, entries }))
}

/// Sequence numbers found, first without text as far as that goes, then with.
fn search(text: &str) -> Vec<u32> {
    let query = Query::new(key(text), &numbering());
    let mut found = Vec::new();
    for (entry, message) in entries().iter().zip(MESSAGES) {
        let number = entry.uid / 10;
        let with_text = query.judge(number, entry, Some(&Text::of(message.as_bytes())));
        assert_ne!(with_text, Verdict::Unknown, "{text}");
        let without = query.judge(number, entry, None);
        assert!(without == Verdict::Unknown || without == with_text, "{text}");
        if with_text == Verdict::True {
            found.push(number);
        }
    }
    found
}

#[test]
fn keys() {
    let none: [u32; 0] = [];
    for (text, wanted) in [
        ("ALL", &[1, 2, 3][..]),
        ("OLD", &[1, 2, 3]),
        ("NEW", &none),
        ("RECENT", &none),
        ("SEEN", &[1]),
        ("UNSEEN", &[2, 3]),
        ("FLAGGED UNSEEN", &[2]),
        ("KEYWORD work", &[2]),
        ("UNKEYWORD WORK", &[1, 3]),
        ("OR SEEN FLAGGED", &[1, 2]),
        ("NOT (SEEN)", &[2, 3]),
        ("2:*", &[2, 3]),
        ("UID 10,30", &[1, 3]),
        ("UID 99:*", &[3]),
        ("FROM foobar", &[1]),
        ("FROM BLURDYbloop", &[1]),
        ("SUBJECT meeting", &[1]),
        ("SUBJECT \"grüße aus\"", &[2]),
        ("SUBJECT \"KÖLN\"", &[2]),
        ("HEADER To \"\"", &[1]),
        ("HEADER Message-ID \"\"", &none),
        ("TO owatagu CC x", &none),
        ("BODY joe", &[1]),
        ("BODY \"äpfel\"", &[2]),
        ("BODY nested", &[3]),
        ("BODY innermost", &[3]),
        ("BODY binary", &none),
        ("BODY outer", &none),
        ("TEXT outer", &[3]),
        ("TEXT w4RwZm", &none),
        ("NOT BODY joe", &[2, 3]),
        ("OR SEEN BODY nested", &[1, 3]),
        ("SMALLER 170", &[1]),
        ("LARGER 170", &[2, 3]),
        ("BEFORE 8-Feb-1994", &[1]),
        ("ON 8-Feb-1994", &[2]),
        ("SINCE 8-Feb-1994", &[2, 3]),
        ("SENTON 7-Feb-1994", &[1]),
        ("SENTSINCE 8-Feb-1994", &[2]),
        ("SENTBEFORE 8-Feb-1994", &[1]),
    ] {
        assert_eq!(search(text), wanted, "{text}");
    }
}

#[test]
fn the_index_is_enough_for_most_keys() {
    let query = |text: &str| Query::new(key(text), &numbering());
    let first = &entries()[0];
    assert_eq!(query("SUBJECT meeting SINCE 1-Jan-1990 FROM fred").judge(1, first, None), Verdict::True);
    assert_eq!(query("UNSEEN BODY x").judge(1, first, None), Verdict::False, "no need to read what is seen");
    assert_eq!(query("OR SEEN BODY x").judge(1, first, None), Verdict::True);
    assert_eq!(query("TEXT foobar").judge(1, first, None), Verdict::True, "the header already has it");
    assert_eq!(query("SEEN NOT BODY x").judge(1, first, None), Verdict::Unknown);
}

/// Keys over one flag and one body word, with their truth when the flag is set or not and the word there or not.
fn keys_of_two() -> impl Strategy<Value = SearchKey> {
    let leaf = prop_oneof![
        Just(SearchKey::Flag(FlagName::Seen)),
        Just(SearchKey::Body("joe".to_owned())),
        Just(SearchKey::All),
    ];
    leaf.prop_recursive(4, 16, 3, |inner| {
        prop_oneof![
            inner.clone().prop_map(|key| SearchKey::Not(Box::new(key))),
            (inner.clone(), inner.clone()).prop_map(|(one, other)| SearchKey::Or(Box::new(one), Box::new(other))),
            prop::collection::vec(inner, 1..3).prop_map(SearchKey::And),
        ]
    })
}

fn truth(key: &SearchKey, seen: bool, joe: bool) -> bool {
    match key {
        SearchKey::All => true,
        SearchKey::Flag(_) => seen,
        SearchKey::Body(_) => joe,
        SearchKey::Not(key) => !truth(key, seen, joe),
        SearchKey::Or(one, other) => truth(one, seen, joe) || truth(other, seen, joe),
        SearchKey::And(keys) => keys.iter().all(|key| truth(key, seen, joe)),
        other => panic!("not made here: {other:?}"),
    }
}

proptest! {
    #[test]
    fn three_values_agree_with_two(key in keys_of_two(), seen: bool, joe: bool) {
        let mut entry = entries().swap_remove(0);
        entry.flags.seen = seen;
        let query = Query::new(key.clone(), &numbering());
        let text = Text(if joe { "hello joe".to_owned() } else { String::new() });
        prop_assert_eq!(query.judge(1, &entry, Some(&text)), truth(&key, seen, joe).into());
        match query.judge(1, &entry, None) {
            Verdict::Unknown => {}
            known => {
                prop_assert_eq!(known, truth(&key, seen, true).into());
                prop_assert_eq!(known, truth(&key, seen, false).into());
            }
        }
    }

    #[test]
    fn any_message_has_a_text(message: Vec<u8>) {
        Text::of(&message);
    }
}
