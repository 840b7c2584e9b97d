"""IDLE between two clients: what one does, the other is told without asking.

Goal: RFC 2177 pushes for a new message, a changed flag and an expunge, and for mail that arrives by SMTP.
Method: one raw session idles, an imaplib session of the same user changes the folder; then bob sends a mail.
"""

import base64
import re

from ring import RUN, Raw, check, imap, ok, smtp, uids, user, wait_for_message

FOLDER = "idle-" + RUN


def wait_line(raw, pattern):
    """Reads until an untagged line matches; the socket's time limit bounds the wait."""
    while True:
        line = raw.line()
        check(line, "hung up while waiting for", pattern)
        if re.match(pattern, line):
            return line


def idling(folder):
    """A raw session of alice that idles in the folder."""
    entry = user("alice")
    raw = Raw.imap("alice")
    secret = base64.b64encode(("\0%s\0%s" % (entry["address"], entry["password"])).encode())
    check(raw.command(b"a", b"AUTHENTICATE PLAIN " + secret)[-1].startswith(b"a OK"), "login")
    check(raw.command(b"b", b"SELECT " + folder.encode())[-1].startswith(b"b OK"), "select")
    raw.send(b"c IDLE\r\n")
    wait_line(raw, rb"\+")
    return raw


def done(raw):
    """Ends the IDLE and the session."""
    raw.send(b"DONE\r\n")
    check(raw.until_tag(b"c")[-1].startswith(b"c OK"), "IDLE did not end in OK")
    check(raw.command(b"d", b"LOGOUT")[-1].startswith(b"d OK"), "logout")
    raw.close()


def two_clients():
    """Append, flag and expunge by one are pushed to the other."""
    writer = imap("alice")
    ok(writer.create(FOLDER))
    raw = idling(FOLDER)
    for number in (1, 2, 3):
        ok(writer.append(FOLDER, None, None, b"Subject: %d\r\n\r\nx\r\n" % number))
        wait_line(raw, rb"\* %d EXISTS" % number)
    ok(writer.select(FOLDER))
    second = uids(writer, "ALL")[1]
    ok(writer.uid("STORE", str(second), "+FLAGS", r"(\Flagged)"))
    check(b"\\Flagged" in wait_line(raw, rb"\* 2 FETCH"), "the flag is not in the push")
    ok(writer.uid("STORE", str(second), "+FLAGS", r"(\Deleted)"))
    ok(writer.expunge())
    wait_line(raw, rb"\* 2 EXPUNGE")
    done(raw)
    ok(writer.close())
    ok(writer.delete(FOLDER))
    writer.logout()


def arriving_mail():
    """A mail sent by SMTP from another node is pushed into an idling inbox."""
    raw = idling("INBOX")
    name = "%s@idle.example" % RUN
    sender = smtp("bob")
    sender.sendmail(
        user("bob")["address"],
        [user("alice")["address"]],
        b"From: bob@epost.test\r\nTo: alice@epost.test\r\nSubject: push\r\n"
        b"Date: Sat, 21 Nov 2026 18:00:00 +0000\r\nMessage-ID: <%s>\r\n\r\nhello\r\n" % name.encode(),
    )
    sender.quit()
    wait_line(raw, rb"\* \d+ EXISTS")
    done(raw)
    wait_for_message("alice", name)


two_clients()
arriving_mail()
print("idle passed, seed", RUN)
