//! Goal: the commands of RFC 3501 and the extensions served parse to what they mean; everything else is an error and
//! never a panic. Method: the RFCs' own examples and their neighbours, broken one at a time; random octets; valid
//! commands with random octets changed.

use super::*;
use crate::imap::command::{
    Command, Date, DateRelation, FetchItem, FlagName, Partial, SearchKey, Section, SectionText, StatusItem, StoreMode,
};
use crate::imap::sequence::{SequenceRange, SequenceSet};
use post::mail::view::Flags;
use proptest::prelude::*;

fn parsed(text: &str) -> Command {
    let tagged = command(format!("a1 {text}").as_bytes(), None);
    tagged.unwrap_or_else(|error| panic!("{text}: {error}")).command
}

fn refused(text: &str) -> ParseError {
    match command(format!("a1 {text}").as_bytes(), None) {
        Err(error) => error,
        Ok(tagged) => panic!("{text}: {tagged:?}"),
    }
}

fn set(ranges: &[(u32, u32)]) -> SequenceSet {
    let bound = |number: u32| (number > 0).then_some(number);
    SequenceSet(ranges.iter().map(|(first, last)| SequenceRange { first: bound(*first), last: bound(*last) }).collect())
}

fn secret(text: &str) -> Secret {
    Secret(Zeroizing::new(text.as_bytes().to_vec()))
}

#[test]
fn commands_about_the_session() {
    assert_eq!(parsed("NOOP"), Command::Noop);
    assert_eq!(parsed("capability"), Command::Capability);
    assert_eq!(parsed("LoGoUt"), Command::Logout);
    assert_eq!(parsed("STARTTLS"), Command::StartTls);
    assert_eq!(parsed("LOGIN SMITH SESAME"), Command::Login { user: "SMITH".into(), password: secret("SESAME") });
    assert_eq!(
        parsed("LOGIN {5}\r\nsmith {6+}\r\npa\r\n\"\\"),
        Command::Login { user: "smith".into(), password: secret("pa\r\n\"\\") }
    );
    assert_eq!(
        parsed("LOGIN \"a \\\"b\\\\\" \"pä ss\""),
        Command::Login { user: "a \"b\\".into(), password: secret("pä ss") }
    );
    assert_eq!(parsed("AUTHENTICATE plain"), Command::Authenticate { mechanism: "PLAIN".into(), initial: None });
    assert_eq!(
        parsed("AUTHENTICATE PLAIN AGEAYg=="),
        Command::Authenticate { mechanism: "PLAIN".into(), initial: Some(secret("AGEAYg==")) }
    );
    assert_eq!(parsed("ENABLE CONDSTORE X-GOOD-IDEA"), Command::Enable);
    assert_eq!(parsed("ID NIL"), Command::Id);
    assert_eq!(parsed("ID ()"), Command::Id);
    assert_eq!(parsed("ID (\"name\" \"sodr\" \"version\" NIL)"), Command::Id);
    assert_eq!(parsed("NAMESPACE"), Command::Namespace);
    assert_eq!(parsed("IDLE"), Command::Idle);
    for broken in [
        "LOGIN a",
        "LOGIN a b c",
        "NOOP ",
        "NOOP x",
        "AUTHENTICATE PLAIN a b",
        "ID (\"a\")",
        "ENABLE",
        "LOGIN {3}\r\nab",
    ] {
        assert!(matches!(refused(broken), ParseError::Syntax { .. }), "{broken}");
    }
    assert!(!format!("{:?}", parsed("LOGIN a sesame")).contains("sesame"), "no password in a log");
}

#[test]
fn commands_about_folders() {
    assert_eq!(parsed("SELECT inbox"), Command::Select { folder: "INBOX".into(), read_only: false });
    assert_eq!(parsed("EXAMINE \"a b\""), Command::Select { folder: "a b".into(), read_only: true });
    assert_eq!(parsed("CREATE Inbox/Lists"), Command::Create("INBOX/Lists".into()));
    assert_eq!(parsed("CREATE &ZeVnLIqe-"), Command::Create("日本語".into()));
    assert_eq!(parsed("DELETE {3}\r\na]b"), Command::Delete("a]b".into()));
    assert_eq!(parsed("RENAME a b"), Command::Rename { from: "a".into(), to: "b".into() });
    assert_eq!(parsed("SUBSCRIBE a"), Command::Subscribe { folder: "a".into(), subscribed: true });
    assert_eq!(parsed("UNSUBSCRIBE a"), Command::Subscribe { folder: "a".into(), subscribed: false });
    assert_eq!(
        parsed("LIST \"\" %/*"),
        Command::List { reference: String::new(), pattern: "%/*".into(), subscribed: false }
    );
    assert_eq!(
        parsed("LSUB \"#news.\" \"comp.*\""),
        Command::List { reference: "#news.".into(), pattern: "comp.*".into(), subscribed: true }
    );
    assert_eq!(
        parsed("STATUS blurdybloop (UIDNEXT MESSAGES)"),
        Command::Status { folder: "blurdybloop".into(), items: vec![StatusItem::UidNext, StatusItem::Messages] }
    );
    assert!(matches!(refused("SELECT &bad"), ParseError::FolderName(_)));
    assert!(matches!(refused("SELECT \"ü\""), ParseError::FolderName(_)));
    assert!(matches!(refused("STATUS a ()"), ParseError::Syntax { .. }));
    assert!(matches!(refused("STATUS a (HIGHESTMODSEQ)"), ParseError::Syntax { .. }), "not served, not accepted");
    assert!(matches!(refused("SELECT a*"), ParseError::Syntax { .. }));
    assert!(matches!(refused(&format!("SELECT {}", "x".repeat(2000))), ParseError::TooMany(_)));
    assert!(matches!(refused(&format!("LIST \"\" {}", "*".repeat(65))), ParseError::TooMany(_)));
}

#[test]
fn append_brings_its_message() {
    let message = Bytes::from_static(b"Subject: x\r\n\r\n");
    let append = |text: &str| command(format!("a1 APPEND {text}").as_bytes(), Some(message.clone()));
    let flags = Flags { seen: true, keywords: ["$Work".to_owned()].into(), ..Flags::default() };
    assert_eq!(
        append("saved (\\Seen $Work) \"17-Jul-1996 02:44:25 -0700\" {14}\r\n").unwrap().command,
        Command::Append { folder: "saved".into(), flags, internal_date_s: Some(837_596_665), message: message.clone() }
    );
    let plain = Command::Append {
        folder: "INBOX".into(),
        flags: Flags::default(),
        internal_date_s: None,
        message: message.clone(),
    };
    assert_eq!(append("{5}\r\nInbox {14+}\r\n").unwrap().command, plain);
    assert_eq!(append("inbox () {14}\r\n").unwrap().command, plain);
    for broken in [
        "inbox {13}\r\n",
        "inbox {14}\r\n x",
        "inbox (\\Recent) {14}\r\n",
        "inbox \"yesterday\" {14}\r\n",
        "inbox",
        "inbox \"x\"",
    ] {
        assert!(append(broken).is_err(), "{broken}");
    }
    assert!(command(b"a1 APPEND inbox {14}\r\n", None).is_err());
    assert!(command(b"a1 NOOP {14}\r\n", Some(message)).is_err());
}

#[test]
fn fetches() {
    let items = |text: &str| match parsed(&format!("FETCH 1 {text}")) {
        Command::Fetch { items, .. } => items,
        other => panic!("{other:?}"),
    };
    assert_eq!(
        parsed("UID FETCH 443:557,3:* (FLAGS BODY[HEADER.FIELDS (DATE \"FROM\")])"),
        Command::Fetch {
            uid: true,
            set: set(&[(443, 557), (3, 0)]),
            items: vec![
                FetchItem::Flags,
                FetchItem::Section {
                    peek: false,
                    section: Section {
                        path: vec![],
                        text: Some(SectionText::HeaderFields { not: false, names: vec!["DATE".into(), "FROM".into()] }),
                    },
                    partial: None,
                },
            ],
        }
    );
    assert_eq!(items("ALL"), [FetchItem::Flags, FetchItem::InternalDate, FetchItem::Size, FetchItem::Envelope]);
    assert_eq!(items("fast").len(), 3);
    assert_eq!(items("FULL").last(), Some(&FetchItem::Body));
    assert_eq!(items("(RFC822 RFC822.HEADER RFC822.TEXT RFC822.SIZE UID BODYSTRUCTURE)").len(), 6);
    assert_eq!(
        items("body.peek[4.1.MIME]<0.2048>"),
        [FetchItem::Section {
            peek: true,
            section: Section { path: vec![4, 1], text: Some(SectionText::Mime) },
            partial: Some(Partial { first: 0, length: 2048 }),
        }]
    );
    assert_eq!(items("BODY[]"), [FetchItem::Section { peek: false, section: Section::default(), partial: None }]);
    for broken in [
        "FETCH 1",
        "FETCH 0 ALL",
        "FETCH 1: ALL",
        "FETCH 1, ALL",
        "FETCH 4294967296 ALL",
        "FETCH 1 ()",
        "FETCH 1 (ALL)",
        "FETCH 1 BODY[0]",
        "FETCH 1 BODY[1.]",
        "FETCH 1 BODY[.1]",
        "FETCH 1 BODY[MIME]",
        "FETCH 1 BODY[1.FOO]",
        "FETCH 1 BODY[]<0>",
        "FETCH 1 BODY[]<0.0>",
        "FETCH 1 BODY[HEADER.FIELDS ()]",
        "FETCH 1 BODY[HEADER.FIELDS (\"a:b\")]",
        "FETCH 1 (FLAGS  UID)",
        "FETCH 1 (FLAGS",
        "FETCH 1 BODY[",
        "FETCH 1 MODSEQ",
        "FETCH * * FLAGS",
        "FETCH 1 BODY.PEEK",
        "FETCH 1 BODY[HEADER.FIELDS (\"a\r\nb\")]",
    ] {
        assert!(matches!(refused(broken), ParseError::Syntax { .. }), "{broken}");
    }
    let deep = format!("FETCH 1 BODY[{}1]", "1.".repeat(64));
    assert_eq!(refused(&deep), ParseError::TooMany("levels of parts"));
    let many = format!("FETCH 1 ({}UID)", "UID ".repeat(64));
    assert_eq!(refused(&many), ParseError::TooMany("data items"));
    let ranges = vec!["1"; limits::SEQUENCE_RANGES_MAX + 1].join(",");
    assert!(matches!(refused(&format!("FETCH {ranges} UID")), ParseError::TooMany(_)));
}

#[test]
fn stores_and_copies() {
    let deleted = Flags { deleted: true, ..Flags::default() };
    assert_eq!(
        parsed("STORE 2:4 +FLAGS (\\Deleted)"),
        Command::Store { uid: false, set: set(&[(2, 4)]), mode: StoreMode::Add, silent: false, flags: deleted.clone() }
    );
    assert_eq!(
        parsed("UID STORE * -flags.silent \\deleted"),
        Command::Store { uid: true, set: set(&[(0, 0)]), mode: StoreMode::Remove, silent: true, flags: deleted }
    );
    let Command::Store { mode, flags, .. } = parsed("STORE 1 FLAGS ()") else { panic!("a store") };
    assert_eq!((mode, flags), (StoreMode::Replace, Flags::default()));
    let Command::Store { flags, .. } = parsed("STORE 1 FLAGS $Work \\Seen $work") else { panic!("a store") };
    assert_eq!(flags.keywords.len(), 1, "keywords differ not by case");
    assert_eq!(
        parsed("COPY 2:4 MEETING"),
        Command::Copy { uid: false, set: set(&[(2, 4)]), folder: "MEETING".into(), moving: false }
    );
    assert_eq!(
        parsed("UID MOVE 42:69 foo"),
        Command::Copy { uid: true, set: set(&[(42, 69)]), folder: "foo".into(), moving: true }
    );
    assert_eq!(parsed("EXPUNGE"), Command::Expunge { uids: None });
    assert_eq!(parsed("UID EXPUNGE 3000:3002"), Command::Expunge { uids: Some(set(&[(3000, 3002)])) });
    for broken in
        ["STORE 1 FLAGS (\\Recent)", "STORE 1 FLAGS (\\Foo)", "STORE 1 FLAGS", "STORE 1 FLAGS ( )", "UID EXPUNGE"]
    {
        assert!(matches!(refused(broken), ParseError::Syntax { .. }), "{broken}");
    }
    assert_eq!(refused("UID NOOP"), ParseError::UnknownCommand);
}

#[test]
fn searches() {
    let key = |text: &str| match parsed(&format!("SEARCH {text}")) {
        Command::Search { key, .. } => key,
        other => panic!("{other:?}"),
    };
    assert_eq!(
        key("FLAGGED SINCE 1-Feb-1994 NOT FROM \"Smith\""),
        SearchKey::And(vec![
            SearchKey::Flag(FlagName::Flagged),
            SearchKey::Arrived(DateRelation::Since, Date { year: 1994, month: 2, day: 1 }),
            SearchKey::Not(Box::new(SearchKey::Header { name: "FROM".into(), value: "Smith".into() })),
        ])
    );
    assert_eq!(key("CHARSET UTF-8 TEXT {3}\r\n\u{20ac}"), SearchKey::Text("€".into()));
    assert_eq!(key("charset us-ascii BODY \"x\""), SearchKey::Body("x".into()));
    assert_eq!(
        key("OR (SEEN 1:3) UID *"),
        SearchKey::Or(
            Box::new(SearchKey::And(vec![SearchKey::Flag(FlagName::Seen), SearchKey::Numbers(set(&[(1, 3)]))])),
            Box::new(SearchKey::Uids(set(&[(0, 0)])))
        )
    );
    assert_eq!(key("(((ALL)))"), SearchKey::All);
    assert_eq!(key("SENTON \"8-Feb-1994\""), SearchKey::Sent(DateRelation::On, Date { year: 1994, month: 2, day: 8 }));
    assert_eq!(key("UNKEYWORD $Work"), SearchKey::Not(Box::new(SearchKey::Flag(FlagName::Keyword("$Work".into())))));
    for every in [
        "ALL",
        "ANSWERED",
        "BCC x",
        "BEFORE 1-Jan-2000",
        "BODY x",
        "CC x",
        "DELETED",
        "DRAFT",
        "FLAGGED",
        "FROM x",
        "HEADER X-Y z",
        "KEYWORD k",
        "LARGER 1",
        "NEW",
        "NOT ALL",
        "OLD",
        "ON 1-Jan-2000",
        "OR ALL ALL",
        "RECENT",
        "SEEN",
        "SENTBEFORE 1-Jan-2000",
        "SENTON 1-Jan-2000",
        "SENTSINCE 1-Jan-2000",
        "SINCE 1-Jan-2000",
        "SMALLER 1",
        "SUBJECT x",
        "TEXT x",
        "TO x",
        "UID 1",
        "UNANSWERED",
        "UNDELETED",
        "UNDRAFT",
        "UNFLAGGED",
        "UNKEYWORD k",
        "UNSEEN",
        "1:*",
    ] {
        key(every);
    }
    assert_eq!(refused("SEARCH CHARSET KOI8-R TEXT x"), ParseError::Charset);
    for broken in [
        "SEARCH",
        "SEARCH ()",
        "SEARCH OR ALL",
        "SEARCH BEFORE 31-Feb-2000",
        "SEARCH FROM",
        "SEARCH ALL ",
        "SEARCH XYZZY",
    ] {
        assert!(matches!(refused(broken), ParseError::Syntax { .. }), "{broken}");
    }
    let nested = format!("SEARCH {}ALL{}", "(".repeat(40), ")".repeat(40));
    assert_eq!(refused(&nested), ParseError::TooMany("levels of search keys"));
    let nots = format!("SEARCH {}ALL", "NOT ".repeat(40));
    assert_eq!(refused(&nots), ParseError::TooMany("levels of search keys"));
    let many = format!("SEARCH {}", vec!["ALL"; 300].join(" "));
    assert_eq!(refused(&many), ParseError::TooMany("search keys"));
    assert!(command(b"a SEARCH TEXT \"\xff\"", None).is_err(), "not UTF-8");
}

#[test]
fn tags_and_garbage() {
    assert_eq!(tag_of(b"A001 NOOP").map(|tag| tag.to_string()).as_deref(), Some("A001"));
    assert_eq!(tag_of(b"a]b.c-d x").map(|tag| tag.to_string()).as_deref(), Some("a]b.c-d"));
    for broken in [&b""[..], b" NOOP", b"a+b NOOP", b"* NOOP", b"(a) NOOP", b"\xff NOOP"] {
        assert_eq!(tag_of(broken), None, "{broken:?}");
        assert_eq!(command(broken, None), Err(ParseError::NoTag));
    }
    assert_eq!(tag_of(&[b'a'; 129]), None);
    assert_eq!(refused("XYZZY"), ParseError::UnknownCommand);
    assert!(command(b"a", None).is_err());
    assert!(command(b"a  NOOP", None).is_err());
    assert!(command(b"GET / HTTP/1.1", None).is_err());
}

const VALID: [&str; 12] = [
    "a LOGIN {5}\r\nalice \"x\"",
    "a SELECT INBOX",
    "a FETCH 1:* (FLAGS BODY.PEEK[1.2.HEADER.FIELDS.NOT (A B)]<1.2>)",
    "a SEARCH CHARSET UTF-8 OR (SEEN 1:3) NOT TEXT {3}\r\nabc",
    "a STORE 1,2:3 +FLAGS.SILENT (\\Seen k)",
    "a UID COPY 1:2 \"a b\"",
    "a LIST \"\" \"%/*\"",
    "a STATUS x (MESSAGES UIDNEXT)",
    "a ID (\"a\" NIL)",
    "a APPEND x (\\Seen) \" 1-Jan-2000 00:00:00 +0000\" {3}\r\n",
    "a AUTHENTICATE PLAIN AAAA",
    "a UID EXPUNGE 1:*",
];

proptest! {
    #[test]
    fn random_octets_never_panic(text: Vec<u8>, message: Option<Vec<u8>>) {
        let _ = command(&text, message.map(Bytes::from));
    }

    #[test]
    fn changed_commands_never_panic(
        which in 0..VALID.len(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in any::<prop::sample::Index>(),
        with_message: bool,
    ) {
        let mut text = VALID[which].as_bytes().to_vec();
        for (at, octet) in changes {
            let at = at.index(text.len());
            text[at] = octet;
        }
        text.truncate(cut.index(text.len() + 1));
        let _ = command(&text, with_message.then(|| Bytes::from_static(b"abc")));
    }

    #[test]
    fn any_string_survives_quoting_and_literals(text in "[^\0]{0,40}") {
        let quoted = text.replace('\\', "\\\\").replace('"', "\\\"");
        let literal = format!("a SEARCH TEXT {{{}}}\r\n{text}", text.len());
        let wanted = Command::Search { uid: false, key: SearchKey::Text(text.clone()) };
        prop_assert_eq!(command(literal.as_bytes(), None).unwrap().command, wanted.clone());
        if !text.contains(['\r', '\n']) {
            let line = format!("a SEARCH TEXT \"{quoted}\"");
            prop_assert_eq!(command(line.as_bytes(), None).unwrap().command, wanted);
        }
    }
}
