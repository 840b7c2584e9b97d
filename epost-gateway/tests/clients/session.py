"""An imaplib session over everything a conventional client does with folders, flags and messages.

Goal: IMAP as RFC 3501, 4315, 6851, 6154, 3691 and 7888 say, seen through a client nobody here wrote.
Method: a small dictionary beside the session says what the folder must hold after every step.
"""

import base64
import imaplib
import re
import time

from ring import DICE, RUN, Raw, check, fetched, flags, imap, ok, refused, uids, user

FOLDER = "session-" + RUN
OTHER = "other-" + RUN


def message(number, size=200):
    """A small message with a subject to search for and a body of random words."""
    words = " ".join("%08x" % DICE.getrandbits(32) for _ in range(max(1, size // 9)))
    lines = [words[start : start + 70] for start in range(0, len(words), 70)]
    head = [
        "From: Carol <carol%d@example.org>" % number,
        "To: alice@epost.test",
        "Subject: number %d of %s" % (number, RUN),
        "Date: Sat, 21 Nov 2026 18:00:%02d +0000" % number,
        "Message-ID: <%s-%d@session.example>" % (RUN, number),
    ]
    return ("\r\n".join(head + [""] + lines + [""])).encode()


def capabilities(client):
    """What the server says it can do is what the issue asks for."""
    words = set(ok(client.capability())[-1].decode().upper().split())
    for word in (
        "IMAP4REV1 LITERAL+ SASL-IR ID ENABLE IDLE NAMESPACE CHILDREN UNSELECT UIDPLUS MOVE SPECIAL-USE".split()
    ):
        check(word in words, word, "is not among", sorted(words))
    ok(client.namespace())
    imaplib.Commands.setdefault("ID", ("NONAUTH", "AUTH", "SELECTED"))
    ok(client._simple_command("ID", '("name" "session")'))


def special_folders(client):
    """Sent, Drafts, Trash, Junk and Archive are there from the start and say what they are for."""
    listing = [line.decode() for line in ok(client.list('""', "*"))]
    for use in ("Sent", "Drafts", "Trash", "Junk", "Archive"):
        check(any("\\" + use in line and use in line.split(")", 1)[1] for line in listing), "no", use, "in", listing)
    check(any(line.endswith("INBOX") or line.endswith('"INBOX"') for line in listing), "no INBOX in", listing)


def folders(client):
    """Create, nest, list, subscribe, rename and delete; a name beyond ASCII; what must be refused."""
    ok(client.create(FOLDER + "/deep"))
    ok(client.create("Entw&APw-rfe-" + RUN))
    listing = b"\n".join(ok(client.list('""', "*"))).decode()
    check(FOLDER + "/deep" in listing, "nested folder not listed")
    check("Entw&APw-rfe-" + RUN in listing, "folder with an umlaut not listed")
    check(FOLDER + "/deep" not in b"\n".join(ok(client.list('""', "%"))).decode(), "% matched a level deeper")
    ok(client.subscribe(FOLDER + "/deep"))
    check(FOLDER + "/deep" in str(ok(client.lsub('""', FOLDER + "*"))), "subscription not listed")
    ok(client.unsubscribe(FOLDER + "/deep"))
    ok(client.rename(FOLDER + "/deep", FOLDER + "/deeper"))
    check(FOLDER + "/deeper" in str(ok(client.list('""', FOLDER + "/*"))), "renamed folder not listed")
    ok(client.delete(FOLDER + "/deeper"))
    ok(client.delete("Entw&APw-rfe-" + RUN))
    refused(client.delete("INBOX"))
    refused(client.delete("never-" + RUN))
    refused(client.rename("never-" + RUN, "ever-" + RUN))
    refused(client.create("INBOX"))
    # `FOLDER` may be there already, as the parent of the nested one.
    client.create(FOLDER)
    ok(client.create(OTHER))
    refused(client.create(OTHER))
    check(client.select("never-" + RUN)[0] == "NO", "a folder that is not there was selected")


def appends(client):
    """Ten messages with flags and dates; APPENDUID names them, and they come back the same."""
    there = {}
    for number in range(10):
        given = {0: None, 1: r"(\Seen)", 2: r"(\Flagged $Forwarded)"}.get(number % 3)
        date = imaplib.Time2Internaldate(1_700_000_000 + number * 3600)
        body = message(number, 100 + number * 700)
        ok(client.append(FOLDER, given, date, body))
        answer = client.response("APPENDUID")[1][-1]
        check(answer, "no APPENDUID")
        uid = int(answer.split()[1])
        check(uid not in there and (not there or uid > max(there)), "UID", uid, "is not ascending")
        there[uid] = (body, set((given or "").strip("()").split()))
    check(int(ok(client.select(FOLDER))[0]) == 10, "EXISTS is not 10")
    validity = client.response("UIDVALIDITY")[1][0]
    check(uids(client, "ALL") == sorted(there), "UIDs differ from what APPENDUID said")
    found = fetched(ok(client.uid("FETCH", "1:*", "(UID RFC822.SIZE INTERNALDATE BODY.PEEK[])")))
    sizes = ok(client.uid("FETCH", "1:*", "(UID RFC822.SIZE INTERNALDATE)"))
    for line, (uid, (body, expected)) in zip(sizes, sorted(there.items())):
        check(found[uid]["BODY[]"] == body, "message", uid, "came back altered")
        check(b"RFC822.SIZE %d" % len(body) in line, "wrong size in", line)
        check(flags(client, uid) == expected, "flags of", uid, "are", flags(client, uid), "not", expected)
        stamp = time.mktime(imaplib.Internaldate2tuple(line))
        number = sorted(there).index(uid)
        check(int(stamp) == 1_700_000_000 + number * 3600, "wrong INTERNALDATE", line)
    return there, validity


def parts(client, uid, body):
    """Sections and partial fetches are slices of the whole; ENVELOPE and BODYSTRUCTURE parse."""
    head, text = body.split(b"\r\n\r\n", 1)

    def section(item):
        data = ok(client.uid("FETCH", str(uid), "(UID %s)" % item))
        return [part for part in data if isinstance(part, tuple)][0][1]

    check(section("BODY.PEEK[HEADER]") == head + b"\r\n\r\n", "HEADER differs")
    check(section("BODY.PEEK[TEXT]") == text, "TEXT differs")
    check(section("BODY.PEEK[1]") == text, "part 1 differs")
    check(section("BODY.PEEK[]<10.25>") == body[10:35], "a partial fetch differs")
    subject = section("BODY.PEEK[HEADER.FIELDS (SUBJECT)]")
    check(subject.strip().startswith(b"Subject: number"), "HEADER.FIELDS gave", subject)
    rest = section("BODY.PEEK[HEADER.FIELDS.NOT (SUBJECT)]")
    check(b"Subject" not in rest and b"Message-ID" in rest, "HEADER.FIELDS.NOT gave", rest)
    shape = b" ".join(
        part if isinstance(part, bytes) else b"".join(part)
        for part in ok(client.uid("FETCH", str(uid), "(ENVELOPE BODYSTRUCTURE)"))
    )
    check(b"number" in shape and b"carol" in shape and re.search(rb'(?i)"text" "plain"', shape), "structure", shape)
    before = flags(client, uid)
    section("BODY.PEEK[]")
    check(flags(client, uid) == before, "PEEK changed flags")
    section("BODY[]")
    check("\\Seen" in flags(client, uid), "BODY[] did not set \\Seen")


def stores(client, there):
    """STORE adds, removes and replaces system flags and keywords."""
    first, second = sorted(there)[:2]
    ok(client.uid("STORE", str(first), "FLAGS", r"(\Answered work)"))
    check(flags(client, first) == {"\\Answered", "work"}, "FLAGS replaced to", flags(client, first))
    ok(client.uid("STORE", "%d,%d" % (first, second), "+FLAGS", r"(\Flagged urgent)"))
    check(flags(client, first) == {"\\Answered", "\\Flagged", "work", "urgent"}, "+FLAGS", flags(client, first))
    ok(client.uid("STORE", str(first), "-FLAGS", r"(\Answered work)"))
    check(flags(client, first) == {"\\Flagged", "urgent"}, "-FLAGS", flags(client, first))
    ok(client.uid("STORE", "%d,%d" % (first, second), "-FLAGS.SILENT", r"(\Flagged urgent)"))
    check(flags(client, first) == set(), "-FLAGS.SILENT left", flags(client, first))
    check(uids(client, "KEYWORD", "work") == [], "a removed keyword is still found")


def searches(client, there):
    """SEARCH answers as a scan of what was put in does."""
    everything = sorted(there)
    check(uids(client, "SUBJECT", '"number 7 of"') == [everything[7]], "SUBJECT")
    check(uids(client, "FROM", "carol3@example.org") == [everything[3]], "FROM")
    word = there[everything[4]][0].split(b"\r\n\r\n")[1][:8].decode()
    check(uids(client, "BODY", word) == [everything[4]], "BODY")
    check(uids(client, "TEXT", word.upper()) == [everything[4]], "TEXT without regard to case")
    large = [uid for uid in everything if len(there[uid][0]) > 3000]
    check(uids(client, "LARGER", "3000") == large, "LARGER")
    check(uids(client, "NOT", "LARGER", "3000") == sorted(set(everything) - set(large)), "NOT")
    check(
        uids(client, "OR", "SUBJECT", '"number 1 of"', "SUBJECT", '"number 2 of"') == everything[1:3], "OR"
    )
    check(uids(client, "UID", "%d:%d" % (everything[2], everything[5])) == everything[2:6], "UID range")
    check(uids(client, "HEADER", "Message-ID", "%s-6@" % RUN) == [everything[6]], "HEADER")
    check(uids(client, "SENTON", "21-Nov-2026") == everything, "SENTON")
    check(uids(client, "BEFORE", "1-Jan-2023") == [], "BEFORE")
    check(uids(client, "SINCE", "1-Jan-2023") == everything, "SINCE")
    seen, unseen = uids(client, "SEEN"), uids(client, "UNSEEN")
    check(sorted(seen + unseen) == everything and not set(seen) & set(unseen), "SEEN and UNSEEN")


def copies_and_moves(client, there):
    """COPY leaves, MOVE takes, both say the new UIDs; flags travel along."""
    everything = sorted(there)
    ok(client.uid("STORE", str(everything[3]), "+FLAGS", r"(\Flagged)"))
    ok(client.uid("COPY", "%d:%d" % (everything[2], everything[4]), OTHER))
    copied = client.response("COPYUID")[1][-1]
    check(copied, "COPY said no COPYUID")
    check(uids(client, "ALL") == everything, "COPY took something away")
    check(client.uid("COPY", str(everything[0]), "never-" + RUN)[0] == "NO", "copied into a folder that is not there")
    check(b"TRYCREATE" in str(client.response("TRYCREATE")).encode(), "no TRYCREATE")
    ok(client.uid("MOVE", "%d,%d" % (everything[8], everything[9]), OTHER))
    check(client.response("COPYUID")[1][-1], "MOVE said no COPYUID")
    check(uids(client, "ALL") == everything[:8], "MOVE left something behind")
    ok(client.select(OTHER))
    order = [2, 3, 4, 8, 9]
    here = uids(client, "ALL")
    check(len(here) == 5, "the other folder holds", here)
    found = fetched(ok(client.uid("FETCH", "1:*", "(UID BODY.PEEK[])")))
    for number, uid in zip(order, here):
        check(found[uid]["BODY[]"] == there[everything[number]][0], "message", number, "was altered on its way")
    check("\\Flagged" in flags(client, here[1]), "a flag did not travel")
    status = ok(client.status(OTHER, "(MESSAGES UIDNEXT UIDVALIDITY UNSEEN)"))[0].decode()
    check("MESSAGES 5" in status, status)
    check(int(re.search(r"UIDNEXT (\d+)", status).group(1)) > max(here), status)
    return everything[:8]


def expunges(client, there, remaining):
    """UID EXPUNGE takes only what it names; EXPUNGE the rest; UIDs do not come back."""
    ok(client.select(FOLDER))
    gone, spared = remaining[0], remaining[1]
    ok(client.uid("STORE", "%d,%d" % (gone, spared), "+FLAGS.SILENT", r"(\Deleted)"))
    ok(client.uid("EXPUNGE", str(gone)))
    check(uids(client, "ALL") == remaining[1:], "UID EXPUNGE left", uids(client, "ALL"))
    ok(client.expunge())
    check(uids(client, "ALL") == remaining[2:], "EXPUNGE left", uids(client, "ALL"))
    last = message(99)
    ok(client.append(FOLDER, None, None, last))
    uid = int(client.response("APPENDUID")[1][-1].split()[1])
    check(uid > max(there), "UID", uid, "was used before")
    # Read-only: EXAMINE, and UNSELECT that does not expunge.
    ok(client.uid("STORE", str(uid), "+FLAGS", r"(\Deleted)"))
    ok(client.unselect())
    ok(client.select(FOLDER, readonly=True))
    check(uid in uids(client, "ALL"), "UNSELECT expunged")
    ok(client.unselect())
    ok(client.select(FOLDER))
    ok(client.close())
    ok(client.select(FOLDER))
    check(uid not in uids(client, "ALL"), "CLOSE did not expunge")


def literal_plus():
    """A big message as a non-synchronising literal after SASL-IR, byte by byte the same."""
    entry = user("alice")
    raw = Raw.imap("alice")
    secret = base64.b64encode(("\0%s\0%s" % (entry["address"], entry["password"])).encode())
    check(raw.command(b"a1", b"AUTHENTICATE PLAIN " + secret)[-1].startswith(b"a1 OK"), "SASL-IR")
    attachment = base64.encodebytes(DICE.randbytes(5_000_000)).replace(b"\n", b"\r\n")
    body = message(50).replace(b"\r\n\r\n", b"\r\nMIME-Version: 1.0\r\nContent-Type: application/octet-stream\r\n"
                               b"Content-Transfer-Encoding: base64\r\n\r\n", 1)
    body = body.split(b"\r\n\r\n")[0] + b"\r\n\r\n" + attachment
    raw.send(b"a2 APPEND %s (\\Seen) {%d+}\r\n" % (FOLDER.encode(), len(body)))
    raw.send(body)
    raw.send(b"\r\n")
    answer = raw.until_tag(b"a2")[-1]
    check(answer.startswith(b"a2 OK") and b"APPENDUID" in answer, "LITERAL+ append:", answer)
    raw.close()
    client = imap("alice", tls="starttls")
    ok(client.select(FOLDER, readonly=True))
    uid = uids(client, "SUBJECT", '"number 50 of %s"' % RUN)
    check(len(uid) == 1, "the big message is there", len(uid), "times")
    whole = fetched(ok(client.uid("FETCH", str(uid[0]), "(UID BODY.PEEK[])")))[uid[0]]["BODY[]"]
    check(whole == body, "the big message came back altered")
    client.logout()


def main():
    """Every step in one session, and what it left seen from a second one."""
    client = imap("alice", tls="starttls")
    capabilities(client)
    special_folders(client)
    folders(client)
    there, validity = appends(client)
    parts(client, sorted(there)[0], there[sorted(there)[0]][0])
    stores(client, there)
    searches(client, there)
    remaining = copies_and_moves(client, there)
    expunges(client, there, remaining)
    literal_plus()
    second = imap("alice")
    ok(second.select(FOLDER, readonly=True))
    check(second.response("UIDVALIDITY")[1][0] == validity, "UIDVALIDITY changed")
    check(uids(second, "UID", "%d:%d" % (remaining[2], remaining[-1])) == remaining[2:], "a second session differs")
    ok(client.unselect())
    for folder in (FOLDER, OTHER):
        ok(client.delete(folder))
    # A session on a folder that is gone may go on or be told to leave; either way others are not disturbed.
    try:
        second.noop()
    except imaplib.IMAP4.abort:
        pass
    ok(client.noop())
    client.logout()
    print("session passed, seed", RUN)


main()
