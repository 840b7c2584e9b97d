//! Goal: whole dialogues go as the RFCs say, between real sessions on one account. Method: a client that reads
//! answers with a reader of its own, over a pipe; what it should hear is written out. Where several sessions change a
//! folder at random, each client believes only what it is told, and must end up believing the truth.

use crate::imap::test_client::{Client, World};

/// The answers that begin so, without their line ends.
fn with<'a>(answers: &'a [String], start: &str) -> Vec<&'a str> {
    answers.iter().map(|answer| answer.trim_end()).filter(|answer| answer.starts_with(start)).collect()
}

#[tokio::test]
async fn nobody_logs_in_in_clear() {
    let world = World::new().await;
    let mut client = world.connect_in_clear();
    assert!(client.read().await.starts_with("* OK [CAPABILITY IMAP4rev1 LITERAL+ SASL-IR ID ENABLE IDLE NAMESPACE CHILDREN UNSELECT UIDPLUS MOVE SPECIAL-USE LOGINDISABLED]"));
    assert!(client.ask("LOGIN alice secret").await.1.starts_with("NO [PRIVACYREQUIRED]"));
    assert!(client.ask("AUTHENTICATE PLAIN AGFsaWNlAHNlY3JldA==").await.1.starts_with("NO [PRIVACYREQUIRED]"));
    assert!(client.ask("STARTTLS").await.1.starts_with("BAD"), "no certificate, no TLS");
    assert!(client.ask("SELECT INBOX").await.1.starts_with("BAD"));
}

#[tokio::test]
async fn logging_in() {
    let world = World::new().await;
    let (user, password) = world.credentials();
    let plain = World::plain(&user, &password);

    let mut client = world.connect();
    assert!(client.read().await.contains("AUTH=PLAIN"));
    let (_, done) = client.ask(&format!("LOGIN {user} \"{password}\"")).await;
    assert!(done.starts_with("OK [CAPABILITY IMAP4rev1 "), "{done}");
    assert!(!done.contains("AUTH=PLAIN"));
    assert!(client.ask(&format!("LOGIN {user} x")).await.1.starts_with("BAD"), "once is enough");

    let mut client = world.connect();
    client.read().await;
    assert!(client.ask(&format!("AUTHENTICATE PLAIN {plain}")).await.1.starts_with("OK"));

    let mut client = world.connect();
    client.read().await;
    client.send(b"x AUTHENTICATE PLAIN\r\n").await;
    assert_eq!(client.read().await, "+ \r\n");
    client.send(b"*\r\n").await;
    assert!(client.read().await.starts_with("x BAD"));
    client.send(b"y authenticate plain\r\n").await;
    assert_eq!(client.read().await, "+ \r\n");
    client.send(format!("{plain}\r\n").as_bytes()).await;
    assert!(client.read().await.starts_with("y OK"));

    let mut client = world.connect();
    client.read().await;
    for response in ["=", "AAAA", "!!!!", "YQ=="] {
        assert!(!client.ask(&format!("AUTHENTICATE PLAIN {response}")).await.1.starts_with("OK"), "{response}");
    }
    assert!(client.ask("AUTHENTICATE CRAM-MD5").await.1.starts_with("NO"));
}

#[tokio::test]
async fn wrong_passwords_are_counted_and_end_the_connection() {
    let world = World::new().await;
    let (user, _) = world.credentials();
    let mut client = world.connect();
    client.read().await;
    for attempt in 1..=3 {
        let (_, done) = client.ask(&format!("LOGIN {user} wrong{attempt}")).await;
        assert!(done.starts_with("NO [AUTHENTICATIONFAILED]"), "{done}");
    }
    assert!(client.read().await.starts_with("* BYE"));
    assert!(client.is_closed().await);
    assert_eq!(world.counted(|counters| &counters.login_failed), 3);
}

#[tokio::test]
async fn the_life_of_a_message() {
    let world = World::new().await;
    let mut client = world.log_in().await;
    let message = "Subject: greetings\r\nFrom: a@b\r\n\r\nHello\r\n";
    let (_, done) = client.append("Drafts", "(\\Draft $Own) \"17-Jul-1996 02:44:25 -0700\"", message).await;
    assert!(done.starts_with("OK [APPENDUID "), "{done}");
    assert!(done.contains(" 1] "), "{done}");

    let (answers, done) = client.ask("SELECT Drafts").await;
    assert!(done.starts_with("OK [READ-WRITE]"));
    assert_eq!(with(&answers, "* 1 EXISTS").len(), 1);
    assert_eq!(with(&answers, "* 0 RECENT").len(), 1);
    assert_eq!(with(&answers, "* OK [UNSEEN 1]").len(), 1);
    assert_eq!(with(&answers, "* OK [UIDNEXT ").len(), 1);
    assert!(with(&answers, "* FLAGS")[0].contains("$Own"));
    assert!(with(&answers, "* OK [PERMANENTFLAGS")[0].contains("\\*"));

    let (answers, done) = client.ask("FETCH 1 (UID FLAGS INTERNALDATE RFC822.SIZE BODY.PEEK[])").await;
    assert!(done.starts_with("OK"));
    let date = "\"17-Jul-1996 09:44:25 +0000\"";
    let size = message.len();
    let wanted = format!(
        "* 1 FETCH (UID 1 FLAGS (\\Draft $Own) INTERNALDATE {date} RFC822.SIZE {size} BODY[] {{{size}}}\r\n{message})\r\n"
    );
    assert_eq!(answers, [wanted]);

    let (answers, _) = client.ask("UID FETCH 1:* BODY[TEXT]").await;
    assert_eq!(answers[0], "* 1 FETCH (UID 1 BODY[TEXT] {7}\r\nHello\r\n)\r\n");
    assert_eq!(answers[1], "* 1 FETCH (UID 1 FLAGS (\\Seen \\Draft $Own))\r\n", "reading sets \\Seen");
    assert_eq!(client.ask("FETCH 1 BODY[TEXT]").await.0.len(), 1, "once");

    let (answers, done) = client.ask("STORE 1 +FLAGS (\\Flagged)").await;
    assert_eq!(answers, ["* 1 FETCH (UID 1 FLAGS (\\Flagged \\Seen \\Draft $Own))\r\n"]);
    assert!(done.starts_with("OK"));
    assert!(client.ask("STORE 1 -FLAGS.SILENT (\\Flagged $own)").await.0.is_empty());
    assert_eq!(client.ask("FETCH 1 FLAGS").await.0, ["* 1 FETCH (FLAGS (\\Seen \\Draft))\r\n"]);
    assert_eq!(client.ask("STORE 1 FLAGS \\Seen").await.0, ["* 1 FETCH (UID 1 FLAGS (\\Seen))\r\n"]);

    assert_eq!(client.ask("SEARCH SUBJECT greet SEEN").await.0, ["* SEARCH 1\r\n"]);
    assert_eq!(client.ask("UID SEARCH BODY hello").await.0, ["* SEARCH 1\r\n"]);
    assert_eq!(client.ask("SEARCH UNSEEN").await.0, ["* SEARCH\r\n"]);
    assert!(client.ask("SEARCH CHARSET KOI8-R ALL").await.1.starts_with("NO [BADCHARSET (US-ASCII UTF-8)]"));

    assert!(client.ask("COPY 1 Nowhere").await.1.starts_with("NO [TRYCREATE]"));
    let (_, done) = client.ask("COPY 1 Archive").await;
    assert!(done.starts_with("OK [COPYUID ") && done.contains(" 1 1] "), "{done}");
    let (answers, done) = client.ask("UID MOVE 1 Archive").await;
    assert!(answers[0].starts_with("* OK [COPYUID ") && answers[0].contains(" 1 2] "), "{answers:?}");
    assert_eq!(answers[1], "* 1 EXPUNGE\r\n");
    assert!(done.starts_with("OK"));

    let (answers, _) = client.ask("STATUS Archive (MESSAGES UNSEEN RECENT)").await;
    assert_eq!(answers, ["* STATUS \"Archive\" (MESSAGES 2 UNSEEN 0 RECENT 0)\r\n"]);
    client.ask("SELECT Archive").await;
    client.ask("STORE 1:2 +FLAGS.SILENT (\\Deleted)").await;
    assert_eq!(client.ask("UID EXPUNGE 2").await.0, ["* 2 EXPUNGE\r\n"]);
    assert!(client.ask("CLOSE").await.0.is_empty(), "CLOSE expunges in silence");
    assert_eq!(client.ask("STATUS Archive (MESSAGES)").await.0, ["* STATUS \"Archive\" (MESSAGES 0)\r\n"]);
    assert!(client.ask("FETCH 1 FLAGS").await.1.starts_with("BAD"), "nothing is selected now");
    let (answers, done) = client.ask("LOGOUT").await;
    assert!(answers[0].starts_with("* BYE") && done.starts_with("OK"));
    assert!(client.is_closed().await);
}

#[tokio::test]
async fn examined_folders_do_not_change() {
    let world = World::new().await;
    let mut client = world.log_in().await;
    client.append("INBOX", "", "A: b\r\n\r\nx").await;
    let (answers, done) = client.ask("EXAMINE inbox").await;
    assert!(done.starts_with("OK [READ-ONLY]"));
    assert_eq!(with(&answers, "* OK [PERMANENTFLAGS ()]").len(), 1);
    assert_eq!(client.ask("FETCH 1 BODY[]").await.0.len(), 1, "no \\Seen");
    for change in ["STORE 1 +FLAGS (\\Seen)", "EXPUNGE", "MOVE 1 Trash"] {
        assert!(client.ask(change).await.1.starts_with("NO [READ-ONLY]"), "{change}");
    }
    assert!(client.ask("COPY 1 Trash").await.1.starts_with("OK"));
    assert!(client.ask("UNSELECT").await.1.starts_with("OK"));
}

#[tokio::test]
async fn folders() {
    let world = World::new().await;
    let mut client = world.log_in().await;
    let (answers, _) = client.ask("LIST \"\" *").await;
    for (name, special_use) in
        [("Archive", "\\Archive"), ("Drafts", "\\Drafts"), ("Junk", "\\Junk"), ("Sent", "\\Sent"), ("Trash", "\\Trash")]
    {
        let line = format!("* LIST (\\HasNoChildren {special_use}) \"/\" \"{name}\"\r\n");
        assert!(answers.contains(&line), "{answers:?}");
    }
    assert!(answers.contains(&"* LIST (\\HasNoChildren) \"/\" \"INBOX\"\r\n".to_owned()));
    assert_eq!(client.ask("LIST \"\" \"\"").await.0, ["* LIST (\\Noselect) \"/\" \"\"\r\n"]);

    assert!(client.ask("CREATE Work/2024/").await.1.starts_with("OK"));
    assert!(client.ask("CREATE Work/2024").await.1.starts_with("NO [ALREADYEXISTS]"));
    assert!(client.ask("CREATE &ZeVnLIqe-").await.1.starts_with("OK"));
    for impossible in ["\"a//b\"", "\"/a\"", "\"a%\"", "\"*\"", "&-&bad"] {
        assert!(client.ask(&format!("CREATE {impossible}")).await.1.starts_with("NO [CANNOT]"), "{impossible}");
    }
    assert_eq!(client.ask("LIST \"\" Work/%").await.0, ["* LIST (\\HasNoChildren) \"/\" \"Work/2024\"\r\n"]);
    assert_eq!(client.ask("LIST Work/ %").await.0, ["* LIST (\\HasNoChildren) \"/\" \"Work/2024\"\r\n"]);
    assert_eq!(client.ask("LIST \"\" &ZeVnLIqe-").await.0, ["* LIST (\\HasNoChildren) \"/\" \"&ZeVnLIqe-\"\r\n"]);

    client.append("Work/2024", "", "A: b\r\n\r\nx").await;
    assert!(client.ask("RENAME Work/2024 Work/2025").await.1.starts_with("OK"));
    assert!(client.ask("SELECT Work/2024").await.1.starts_with("NO [NONEXISTENT]"));
    assert_eq!(with(&client.ask("SELECT Work/2025").await.0, "* 1 EXISTS").len(), 1);
    assert!(client.ask("RENAME Work/2025 Sent").await.1.starts_with("NO [ALREADYEXISTS]"));
    assert!(client.ask("DELETE Work/2025").await.1.starts_with("OK"), "even the one we stand in");
    assert!(client.ask("NOOP").await.1.starts_with("OK"));
    assert!(client.ask("DELETE Work/2025").await.1.starts_with("NO [NONEXISTENT]"));
    assert!(client.ask("DELETE INBOX").await.1.starts_with("NO [CANNOT]"));

    client.ask("UNSUBSCRIBE Junk").await;
    let (answers, _) = client.ask("LSUB \"\" *").await;
    assert!(with(&answers, "* LSUB () \"/\" \"Junk\"").is_empty());
    assert!(client.ask("SUBSCRIBE Junk").await.1.starts_with("OK"));
    assert_eq!(client.ask("LSUB \"\" J*").await.0, ["* LSUB () \"/\" \"Junk\"\r\n"]);
    assert_eq!(client.ask("NAMESPACE").await.0, ["* NAMESPACE ((\"\" \"/\")) NIL NIL\r\n"]);
    assert!(client.ask("ID NIL").await.0[0].starts_with("* ID (\"name\" \"ePOST\""));
    assert_eq!(client.ask("ENABLE CONDSTORE").await.0, ["* ENABLED\r\n"]);
}

#[tokio::test]
async fn two_sessions_see_each_other() {
    let world = World::new().await;
    let mut one = world.log_in().await;
    let mut two = world.log_in().await;
    for _ in 0..4 {
        one.append("INBOX", "", "A: b\r\n\r\nx").await;
    }
    one.ask("SELECT INBOX").await;
    two.ask("SELECT INBOX").await;
    one.append("INBOX", "(\\Flagged)", "A: c\r\n\r\ny").await;
    assert_eq!(two.ask("NOOP").await.0, ["* 5 EXISTS\r\n"]);
    one.ask("STORE 2 +FLAGS.SILENT (\\Answered)").await;
    assert_eq!(two.ask("NOOP").await.0, ["* 2 FETCH (UID 2 FLAGS (\\Answered))\r\n"]);

    one.ask("STORE 1,3 +FLAGS.SILENT (\\Deleted)").await;
    assert_eq!(one.ask("EXPUNGE").await.0, ["* 1 EXPUNGE\r\n", "* 2 EXPUNGE\r\n"]);
    // By number nothing may be expunged under the other's feet: its 4 is still UID 4.
    assert_eq!(two.ask("FETCH 4 UID").await.0, ["* 4 FETCH (UID 4)\r\n"]);
    assert_eq!(two.ask("SEARCH ALL").await.0.last().unwrap(), "* SEARCH 1 2 3 4 5\r\n");
    let (answers, done) = two.ask("FETCH 3:4 (UID BODY.PEEK[TEXT])").await;
    assert_eq!(answers, ["* 4 FETCH (UID 4 BODY[TEXT] {1}\r\nx)\r\n"]);
    assert!(done.starts_with("NO [EXPUNGEISSUED]"), "{done}");
    assert!(two.ask("STORE 3 +FLAGS (\\Seen)").await.1.starts_with("NO [EXPUNGEISSUED]"));
    // COPY is not among the commands that must hold still: all or nothing, and now it is told.
    let (answers, done) = two.ask("COPY 3:4 Trash").await;
    assert!(done.starts_with("NO [EXPUNGEISSUED]"), "{done}");
    assert_eq!(answers, ["* 1 EXPUNGE\r\n", "* 2 EXPUNGE\r\n"]);
    one.ask("UID STORE 5 +FLAGS.SILENT (\\Deleted)").await;
    one.ask("UID EXPUNGE 5").await;
    let (answers, _) = two.ask("UID FETCH 4:5 UID").await;
    assert_eq!(answers, ["* 2 FETCH (UID 4)\r\n", "* 3 EXPUNGE\r\n"], "a UID command may tell it");
}

#[tokio::test]
async fn idle_tells_at_once_and_in_full() {
    let world = World::new().await;
    let mut idler = world.log_in().await;
    let mut other = world.log_in().await;
    other.append("INBOX", "", "A: b\r\n\r\nx").await;
    idler.ask("SELECT INBOX").await;
    idler.send(b"i IDLE\r\n").await;
    assert_eq!(idler.read().await, "+ idling\r\n");
    other.append("INBOX", "", "A: b\r\n\r\ny").await;
    assert_eq!(idler.read().await, "* 2 EXISTS\r\n");
    other.ask("SELECT INBOX").await;
    other.ask("STORE 1 +FLAGS (\\Deleted)").await;
    assert_eq!(idler.read().await, "* 1 FETCH (UID 1 FLAGS (\\Deleted))\r\n");
    other.ask("EXPUNGE").await;
    assert_eq!(idler.read().await, "* 1 EXPUNGE\r\n");
    idler.send(b"done\r\nn NOOP\r\n").await;
    assert!(idler.read().await.starts_with("i OK"));
    assert!(idler.read().await.starts_with("n OK"));

    idler.send(b"i IDLE\r\n").await;
    idler.read().await;
    idler.send(b"n NOOP\r\n").await;
    assert!(idler.read().await.starts_with("i BAD"), "only DONE ends it");
}

#[tokio::test]
async fn a_folder_deleted_elsewhere_ends_the_session() {
    let world = World::new().await;
    let mut one = world.log_in().await;
    let mut two = world.log_in().await;
    one.ask("CREATE Doomed").await;
    one.ask("SELECT Doomed").await;
    one.send(b"i IDLE\r\n").await;
    one.read().await;
    two.ask("DELETE Doomed").await;
    assert!(one.read().await.starts_with("* BYE"));
    assert!(one.is_closed().await);
}

#[tokio::test]
async fn malformed_commands_are_refused_and_the_session_goes_on() {
    let world = World::new().await;
    let mut client = world.log_in().await;
    for (input, wanted) in [
        (b"a NOOP\nb NOOP\r\n".to_vec(), vec!["a BAD", "b OK"]),
        (b"a NO\0OP\r\n".to_vec(), vec!["a BAD"]),
        (b"a XYZZY\r\n".to_vec(), vec!["a BAD"]),
        (b"\r\nb NOOP\r\n".to_vec(), vec!["* BAD", "b OK"]),
        (b"\xff\xfe\r\nb NOOP\r\n".to_vec(), vec!["* BAD", "b OK"]),
        ([b"a NOOP ".to_vec(), vec![b'x'; 70_000], b"\r\nb NOOP\r\n".to_vec()].concat(), vec!["a BAD", "b OK"]),
        (b"a SELECT {70000}\r\nb NOOP\r\n".to_vec(), vec!["a BAD", "b OK"]),
        (
            [b"a SELECT {70000+}\r\n".to_vec(), vec![b'\n'; 70_000], b"\r\nb NOOP\r\n".to_vec()].concat(),
            vec!["a BAD", "b OK"],
        ),
        (b"a FETCH 1 FLAGS\r\nb NOOP\r\n".to_vec(), vec!["a BAD", "b OK"]),
    ] {
        client.send(&input).await;
        for start in wanted {
            let answer = client.read().await;
            assert!(answer.starts_with(start), "{start}: {answer}");
        }
    }
    assert!(world.counted(|counters| &counters.bad) >= 9);
    for _ in 0..9 {
        assert!(client.ask("XYZZY").await.1.starts_with("BAD"));
    }
    assert!(client.ask("NOOP").await.1.starts_with("OK"), "a good command clears the count");
    for _ in 0..10 {
        assert!(client.ask("XYZZY").await.1.starts_with("BAD"));
    }
    assert!(client.read().await.starts_with("* BYE"));
    assert!(client.is_closed().await);
}

#[tokio::test]
async fn messages_too_large_are_refused_and_skipped() {
    let world = World::new().await;
    let mut client = world.log_in().await;
    let size = world.message_bytes_max() + 1;
    client.send(format!("a APPEND INBOX {{{size}}}\r\n").as_bytes()).await;
    assert!(client.read().await.starts_with("a NO [TOOBIG]"), "before it is sent");
    client.send(format!("b APPEND INBOX {{{size}+}}\r\n").as_bytes()).await;
    let piece = vec![b'z'; 64 * 1024];
    let mut left = size;
    while left > 0 {
        let now = left.min(piece.len());
        client.send(&piece[..now]).await;
        left -= now;
    }
    client.send(b"\r\nc NOOP\r\n").await;
    assert!(client.read().await.starts_with("b NO [TOOBIG]"));
    assert!(client.read().await.starts_with("c OK"));
    client.send(b"d APPEND INBOX {99999999999+}\r\n").await;
    assert!(client.read().await.starts_with("* BYE"));
    let mut client = world.log_in().await;
    client.send(b"a APPEND INBOX {0+}\r\n\r\n").await;
    assert!(client.read().await.starts_with("a NO"));
    client.send(b"a APPEND Nowhere {6+}\r\nA: b\r\n\r\n").await;
    assert!(client.read().await.starts_with("a NO [TRYCREATE]"));
}

#[tokio::test]
async fn literals_at_any_cut() {
    let world = World::new().await;
    let mut client = world.log_in().await;
    let input = b"a APPEND {5+}\r\nINBOX (\\Seen) {12+}\r\nA: b\r\n\r\n{3}\n\r\n";
    for at in 1..input.len() {
        client.send(&input[..at]).await;
        tokio::task::yield_now().await;
        client.send(&input[at..]).await;
        assert!(client.read().await.starts_with("a OK [APPENDUID"), "cut at {at}");
    }
    client.ask("SELECT INBOX").await;
    let (answers, _) = client.ask("FETCH * BODY.PEEK[]").await;
    assert!(answers[0].ends_with("BODY[] {12}\r\nA: b\r\n\r\n{3}\n)\r\n"), "{answers:?}");
}

#[tokio::test]
async fn storage_below_quorum_is_said_so_and_loses_nothing() {
    let world = World::new().await;
    let mut client = world.log_in().await;
    client.append("INBOX", "", "A: b\r\n\r\nx").await;
    client.ask("SELECT INBOX").await;
    world.set_writable(false);
    for change in ["STORE 1 +FLAGS (\\Seen)", "COPY 1 Trash", "MOVE 1 Trash"] {
        let (_, done) = client.ask(change).await;
        assert!(done.starts_with("NO [UNAVAILABLE]"), "{change}: {done}");
    }
    let (_, done) = client.append("INBOX", "", "A: b\r\n\r\nx").await;
    assert!(done.starts_with("NO [UNAVAILABLE]"), "{done}");
    // Reading goes on; that \Seen was not kept is said.
    let (answers, done) = client.ask("FETCH 1 BODY[TEXT]").await;
    assert!(done.starts_with("OK"), "{done}");
    assert!(answers[1].starts_with("* NO [UNAVAILABLE]"), "{answers:?}");
    world.set_writable(true);
    assert!(client.ask("STORE 1 +FLAGS (\\Seen)").await.1.starts_with("OK"));
    assert_eq!(client.ask("SEARCH SEEN").await.0, ["* SEARCH 1\r\n"]);
}

#[tokio::test]
async fn a_listing_reads_no_message_and_reading_many_is_one_commit() {
    let world = World::new().await;
    let mut client = world.log_in().await;
    for number in 0..5 {
        let message = format!("Subject: s{number}\r\nContent-Type: text/plain\r\n\r\n{}", "body\r\n".repeat(2_000));
        client.append("INBOX", "", &message).await;
    }
    client.ask("SELECT INBOX").await;
    let before = world.store_counts();
    let listing =
        "UID FETCH 1:* (FLAGS INTERNALDATE RFC822.SIZE ENVELOPE BODYSTRUCTURE BODY.PEEK[HEADER.FIELDS (Subject)])";
    assert_eq!(client.ask(listing).await.0.len(), 5);
    assert_eq!(client.ask("SEARCH SUBJECT s3 SMALLER 100000 UNSEEN").await.0, ["* SEARCH 4\r\n"]);
    assert_eq!(world.store_counts().get, before.get, "everything is in the index");
    assert_eq!(client.ask("FETCH 1:5 BODY[]").await.0.len(), 10, "five messages, and \\Seen of each");
    let after = world.store_counts();
    assert!(after.get >= before.get + 5);
    assert_eq!(after.put_signed, before.put_signed + 1, "one head for all five");
}

#[tokio::test]
async fn with_storage_out_of_reach_what_is_known_is_still_told() {
    let world = World::new().await;
    let mut client = world.log_in().await;
    client.append("INBOX", "", "Subject: known\r\n\r\nnot known").await;
    client.ask("SELECT INBOX").await;
    world.set_reachable(false);
    let (answers, done) = client.ask("FETCH 1 (UID ENVELOPE BODYSTRUCTURE)").await;
    assert!(done.starts_with("OK") && answers[0].contains("known"), "{done}");
    let (answers, done) = client.ask("FETCH 1 BODY[]").await;
    assert!(done.starts_with("NO [UNAVAILABLE]") && answers.is_empty(), "{done} {answers:?}");
    assert!(client.ask("SEARCH BODY known").await.1.starts_with("NO [UNAVAILABLE]"));
    world.set_reachable(true);
    assert!(client.ask("FETCH 1 BODY[]").await.1.starts_with("OK"));
}

#[tokio::test]
async fn bad_numbers_and_empty_folders() {
    let world = World::new().await;
    let mut client = world.log_in().await;
    client.ask("SELECT Junk").await;
    for harmless in [
        "FETCH 1:* FLAGS",
        "UID FETCH 1:* FLAGS",
        "UID STORE 5 +FLAGS (\\Seen)",
        "UID COPY 9 Trash",
        "UID MOVE 9 Trash",
    ] {
        let (answers, done) = client.ask(harmless).await;
        assert!(done.starts_with("OK") && answers.is_empty(), "{harmless}: {done}");
    }
    for wrong in ["FETCH 1 FLAGS", "STORE 7 +FLAGS (\\Seen)", "COPY 1:2 Trash"] {
        assert!(client.ask(wrong).await.1.starts_with("BAD"), "{wrong}");
    }
    client.append("Junk", "", "A: b\r\n\r\nx").await;
    let (answers, _) = client.ask("UID FETCH 99:* FLAGS").await;
    assert_eq!(answers.last().unwrap(), "* 1 FETCH (UID 1 FLAGS ())\r\n", "99:* holds the last message");
}

#[tokio::test]
async fn large_messages_come_whole_and_in_pieces() {
    let world = World::new().await;
    let mut client = world.log_in().await;
    let body: String = (0..60_000).map(|line| format!("line {line}\r\n")).collect();
    let message = format!("Subject: big\r\n\r\n{body}");
    client.append("INBOX", "", &message).await;
    client.append("INBOX", "", "A: b\r\n\r\nsmall").await;
    client.ask("SELECT INBOX").await;
    let (answers, _) = client.ask("FETCH 1:2 RFC822").await;
    assert!(answers[0].contains(&message));
    let mut pieces = String::new();
    while pieces.len() < message.len() {
        let (answers, _) = client.ask(&format!("UID FETCH 1 BODY.PEEK[]<{}.100000>", pieces.len())).await;
        let (_, piece) = answers[0].split_once("}\r\n").unwrap();
        pieces.push_str(piece.strip_suffix(")\r\n").unwrap());
    }
    assert_eq!(pieces, message);
    assert_eq!(client.ask("SEARCH BODY \"line 59999\"").await.0, ["* SEARCH 1\r\n"]);
}

#[tokio::test]
async fn clients_believing_what_they_hear_believe_the_truth() {
    // A generator with a printed seed: a failing run is repeated by setting it.
    let seed = std::env::var("EPOST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(0x5eed_1234_u64);
    println!("EPOST_SEED={seed}");
    let mut draw = generator(seed);
    let world = World::new().await;
    let mut clients: Vec<Client> = Vec::new();
    for _ in 0..3 {
        let mut client = world.log_in().await;
        client.select("INBOX").await;
        clients.push(client);
    }
    for _ in 0..400 {
        let client = &mut clients[draw(3) as usize];
        let count = client.believed().len() as u64;
        let number = 1 + draw(count.max(1));
        let command = match draw(10) {
            0..=2 => {
                client.append("INBOX", "", "A: b\r\n\r\nx").await;
                continue;
            }
            _ if count == 0 => "NOOP".to_owned(),
            3 => format!("STORE {number} +FLAGS (\\Seen k{})", draw(3)),
            4 => format!("STORE {number} -FLAGS.SILENT (\\Seen)"),
            5 => format!("STORE {number} +FLAGS.SILENT (\\Deleted)"),
            6 => "EXPUNGE".to_owned(),
            7 => format!("FETCH {number} (FLAGS BODY[])"),
            8 => "UID FETCH 1:* FLAGS".to_owned(),
            _ => "NOOP".to_owned(),
        };
        let (_, done) = client.ask(&command).await;
        assert!(done.starts_with("OK") || done.starts_with("NO [EXPUNGEISSUED]"), "{command}: {done}");
        if command.contains(".SILENT") {
            // Who asks not to be told does not know.
            client.forget_flags(number as usize);
        }
    }
    let mut fresh = world.log_in().await;
    fresh.select("INBOX").await;
    fresh.ask("UID FETCH 1:* FLAGS").await;
    let truth = fresh.believed().to_vec();
    assert!(truth.iter().all(|message| message.0.is_some() && message.1.is_some()));
    for client in &mut clients {
        client.ask("NOOP").await;
        assert_eq!(client.believed().len(), truth.len());
        for (believed, truth) in client.believed().iter().zip(&truth) {
            assert!(believed.0.is_none() || believed.0 == truth.0, "{believed:?} {truth:?}");
            assert!(believed.1.is_none() || believed.1 == truth.1, "{believed:?} {truth:?}");
        }
        // And asked, they all hear the same.
        client.ask("UID FETCH 1:* FLAGS").await;
        assert_eq!(client.believed(), truth);
    }
}

#[tokio::test]
async fn noise_ends_no_session_but_by_the_rules() {
    let seed = std::env::var("EPOST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(0x0dd5_0fd5_u64);
    println!("EPOST_SEED={seed}");
    let mut draw = generator(seed);
    let world = World::new().await;
    let pieces: [&[u8]; 16] = [
        b"a NOOP\r\n",
        b"b SELECT INBOX\r\n",
        b"c FETCH 1:* (BODY[] ENVELOPE BODYSTRUCTURE)\r\n",
        b"d APPEND INBOX {9+}\r\n",
        b"A: b\r\n\r\nx",
        b"\r\n",
        b"\n",
        b"\0",
        b"{3}\r\n",
        b"{70000+}\r\n",
        b"e SEARCH BODY x\r\n",
        b"f IDLE\r\n",
        b"DONE\r\n",
        b"g UID STORE 1:* FLAGS (k)\r\n",
        b"\xff(\"",
        b"h AUTHENTICATE PLAIN\r\n",
    ];
    for _ in 0..150 {
        let (mut client, session) = if draw(2) == 0 { world.log_in_watched().await } else { world.connect_watched() };
        for _ in 0..draw(40) {
            let piece = pieces[draw(pieces.len() as u64) as usize];
            let length = if draw(4) == 0 { draw(piece.len() as u64 + 1) as usize } else { piece.len() };
            client.send(&piece[..length]).await;
        }
        client.hang_up().await;
        // The session's own task ends, and not by a panic.
        session.await.unwrap();
    }
}

/// Numbers below a bound, the same for the same seed.
fn generator(seed: u64) -> impl FnMut(u64) -> u64 {
    let mut state = seed;
    move |below| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    }
}
