"""A corpus of difficult messages goes in over IMAP and SMTP and comes out byte for byte.

    corpus.py FOLDER_OF_EML_FILES

What counts as a legal message: the file with every line end made CRLF, as imaplib and smtplib do before they send,
is not empty, holds no NUL (no IMAP literal may) and no line over 998 octets (RFC 5322). MIME that is nonsense,
8-bit bytes without a charset and headers that are no headers are all legal here: a mail store must give them back.

Over SMTP go those of them that have a header section in ASCII. A submission's From must be the user's own, and a
few header fields are the system's to write, so these are replaced first (see `submission`).
"""

import glob
import os
import re
import sys

from ring import RUN, check, fetched, imap, message_ids, ok, smtp, split_trace, until, user

FOLDER = "corpus-" + RUN
LEAST_LEGAL = 100
LINE_MAX = 998
# Fields that the submission must not carry (From other than the user's, Bcc) or that the system removes as forged.
REPLACED = re.compile(
    rb"(?i)^(from|sender|resent-[a-z-]+|bcc|date|message-id|return-path|authentication-results|x-epost-[a-z0-9-]*)[ \t]*:"
)


def corpus(folder):
    """(name, bytes with CRLF) of every legal message, and the reasons of those left out."""
    legal, left_out = [], []
    for path in sorted(glob.glob(os.path.join(folder, "**", "*.eml"), recursive=True)):
        with open(path, "rb") as file:
            message = re.sub(rb"\r\n|\r|\n", b"\r\n", file.read())
        name = os.path.relpath(path, folder)
        if not message:
            left_out.append((name, "empty"))
        elif b"\0" in message:
            left_out.append((name, "NUL"))
        elif max(len(line) for line in message.split(b"\r\n")) > LINE_MAX:
            left_out.append((name, "line over %d octets" % LINE_MAX))
        else:
            legal.append((name, message))
    return legal, left_out


def over_imap(messages):
    """APPEND everything, FETCH everything: whole, size, and header plus text."""
    client = imap("alice")
    ok(client.create(FOLDER))
    for name, message in messages:
        ok(client.append(FOLDER, None, None, message))
    client.logout()

    # Another session over the other port reads.
    client = imap("alice", tls="starttls")
    check(int(ok(client.select(FOLDER))[0]) == len(messages), "the folder does not hold every message")
    whole = fetched(ok(client.uid("FETCH", "1:*", "(UID BODY.PEEK[])")))
    heads = fetched(ok(client.uid("FETCH", "1:*", "(UID BODY.PEEK[HEADER])")))
    texts = fetched(ok(client.uid("FETCH", "1:*", "(UID BODY.PEEK[TEXT])")))
    sizes = {}
    for line in ok(client.uid("FETCH", "1:*", "(UID RFC822.SIZE)")):
        sizes[int(re.search(rb"UID (\d+)", line).group(1))] = int(re.search(rb"RFC822.SIZE (\d+)", line).group(1))
    for (name, message), uid in zip(messages, sorted(whole)):
        check(whole[uid]["BODY[]"] == message, name, "came back altered over IMAP")
        check(sizes[uid] == len(message), name, "has size", sizes[uid], "not", len(message))
        check(heads[uid]["BODY[HEADER]"] + texts[uid]["BODY[TEXT]"] == message, name, "header and text differ")
        # Structure of any message can be asked for, one by one, so that a failure names its message.
        check(client.uid("FETCH", str(uid), "(ENVELOPE BODYSTRUCTURE BODY)")[0] == "OK", name, "has no structure")
    ok(client.unselect())
    ok(client.delete(FOLDER))
    client.logout()


def submission(number, message):
    """The message as alice may submit it, and its Message-ID; None if it has no ASCII header section."""
    head, separator, body = message.partition(b"\r\n\r\n")
    if not separator or any(byte > 126 for byte in head):
        return None
    fields = re.split(rb"\r\n(?![ \t])", head)
    if not all(re.match(rb"[!-9;-~]+[ \t]*:", field) for field in fields):
        return None
    name = "%s-%d@corpus.example" % (RUN, number)
    own = [
        b"From: alice@epost.test",
        b"Date: Sat, 21 Nov 2026 18:00:00 +0000",
        b"Message-ID: <%s>" % name.encode(),
    ]
    kept = [field for field in fields if not REPLACED.match(field)]
    if not body.endswith(b"\r\n"):
        body += b"\r\n"
    return name, b"\r\n".join(own + kept) + b"\r\n\r\n" + body


def over_smtp(messages):
    """Alice submits, bob fetches: trace headers in front, everything else as it was."""
    sender = smtp("alice", tls="starttls")
    sent = {}
    for number, (name, message) in enumerate(messages):
        made = submission(number, message)
        if made is None:
            continue
        options = ["BODY=8BITMIME"] if any(byte > 127 for byte in made[1]) else []
        sender.sendmail(user("alice")["address"], [user("bob")["address"]], made[1], mail_options=options)
        sent[made[0]] = (name, made[1])
    sender.quit()

    client = imap("bob")
    ok(client.select("INBOX"))
    until("every corpus mail to arrive", lambda: set(sent) <= set(message_ids(client)))
    there = message_ids(client)
    for message_id, (name, submitted) in sent.items():
        count, uid = there[message_id]
        check(count == 1, name, "arrived", count, "times")
        delivered = fetched(ok(client.uid("FETCH", str(uid), "(UID BODY.PEEK[])")))[uid]["BODY[]"]
        split_trace(delivered, submitted)
    client.logout()
    return len(sent)


def main():
    """Both ways, with the numbers printed and a floor under them."""
    legal, left_out = corpus(sys.argv[1])
    print("corpus: %d legal, %d left out: %s" % (len(legal), len(left_out), left_out))
    check(len(legal) >= LEAST_LEGAL, "only", len(legal), "legal messages: is the corpus there?")
    over_imap(legal)
    submitted = over_smtp(legal)
    check(submitted >= LEAST_LEGAL // 2, "only", submitted, "messages could be submitted")
    print("corpus passed: %d over IMAP, %d over SMTP, seed %s" % (len(legal), submitted, RUN))


main()
