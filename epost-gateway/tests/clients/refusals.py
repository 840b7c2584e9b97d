"""Bad input gets the protocol's error, the session lives or ends by the RFC, and nothing wrong is delivered."""

import base64
import imaplib
import smtplib

from ring import DICE, RUN, Failed, Raw, check, imap, message_ids, ok, smtp, user, wait_for_message

ALICE, BOB = user("alice")["address"], user("bob")["address"]


def body(name, sender=ALICE, text=b"hello\r\n"):
    """A minimal mail with this Message-ID."""
    return (
        b"From: %s\r\nTo: bob@epost.test\r\nSubject: refusals\r\nDate: Sat, 21 Nov 2026 18:00:00 +0000\r\n"
        b"Message-ID: <%s>\r\n\r\n" % (sender.encode(), name.encode())
    ) + text


def expect(codes, attempt, what):
    """The attempt must end in one of these SMTP codes."""
    try:
        answer = attempt()
    except smtplib.SMTPRecipientsRefused as error:
        code = next(iter(error.recipients.values()))[0]
    except smtplib.SMTPResponseException as error:
        code = error.smtp_code
    else:
        raise Failed("%s was accepted: %s" % (what, answer))
    check(code in codes, what, "got", code, "not", codes)


def passwords():
    """Wrong passwords and unknown users are refused alike on both protocols; a right one works afterwards."""
    for name, password in ((ALICE, "wrong"), ("nobody@epost.test", "wrong"), (BOB, user("alice")["password"])):
        client = smtp("alice", login=False)
        expect([535], lambda c=client, n=name, p=password: c.login(n, p), "SMTP login of " + name)
        client.close()
        client = imap("alice", login=False)
        try:
            client.login(name, password)
            raise Failed("IMAP login of %s with a wrong password" % name)
        except imaplib.IMAP4.error:
            pass
        client.shutdown()
    smtp("alice").quit()
    imap("alice").logout()


def envelopes():
    """Sender and recipient rules, sizes, and the order of commands."""
    client = smtp("alice", login=False)
    check(client.mail(ALICE)[0] == 530, "MAIL before AUTH")
    client.quit()
    client = smtp("alice")
    expect([553, 550], lambda: client.sendmail(BOB, [BOB], body("x@" + RUN)), "MAIL FROM another user")
    client.rset()
    expect([550], lambda: client.sendmail(ALICE, ["nobody@epost.test"], body("x@" + RUN)), "an unknown recipient")
    client.rset()
    expect([550, 551, 554], lambda: client.sendmail(ALICE, ["a@example.org"], body("x@" + RUN)), "relaying")
    client.rset()
    name = "forged-%s@refusals.example" % RUN
    expect([553, 550], lambda: client.sendmail(ALICE, [BOB], body(name, sender=BOB)), "a From of another user")
    check(client.noop()[0] == 250, "the session did not survive a refused mail")
    check(client.docmd("RCPT", "TO:<%s>" % BOB)[0] == 503, "RCPT before MAIL")
    check(client.docmd("DATA")[0] in (503, 554), "DATA before RCPT")
    check(client.docmd("MAIL", "FROM:<%s> SIZE=999999999999" % ALICE)[0] == 552, "an announced size over the limit")
    check(client.docmd("FROBNICATE")[0] in (500, 502), "an unknown command")
    check(client.docmd("MAIL", "FROM:<<>>")[0] in (500, 501, 553), "a malformed MAIL")
    # One good and one unknown recipient: the mail goes to the good one.
    good = "partly-%s@refusals.example" % RUN
    refused = client.sendmail(ALICE, [BOB, "nobody@epost.test"], body(good))
    check(list(refused) == ["nobody@epost.test"], "refused recipients:", refused)
    client.quit()
    wait_for_message("bob", good)
    return [name]


def too_large():
    """A message over the limit that was not announced: 552 after DATA, and the session lives."""
    client = smtp("alice")
    limit = int(client.esmtp_features["size"])
    check(0 < limit <= 200_000_000, "the limit is", limit)
    line = b"x" * 998 + b"\r\n"
    name = "large-%s@refusals.example" % RUN
    # sendmail announces the size itself; go by hand so that only the data shows it.
    client.mail(ALICE)
    client.rcpt(BOB)
    check(client.docmd("DATA")[0] == 354, "DATA")
    client.send(body(name))
    for _ in range(limit // len(line) + 2):
        client.send(line)
    client.send(b".\r\n")
    check(client.getreply()[0] == 552, "a message over the limit was not refused with 552")
    check(client.noop()[0] == 250, "the session did not survive a message too large")
    client.quit()
    return [name]


def login_raw(raw):
    """EHLO and AUTH on a raw SMTP connection."""
    raw.send(b"EHLO client.example\r\n")
    check(raw.reply()[0] == 250, "EHLO")
    secret = base64.b64encode(("\0%s\0%s" % (ALICE, user("alice")["password"])).encode())
    raw.send(b"AUTH PLAIN " + secret + b"\r\n")
    check(raw.reply()[0] == 235, "AUTH")


def smuggling():
    """Bare LF and CR: the mail is refused, and no second mail hides in the first one."""
    forbidden = []
    for number, end in enumerate([b"\n.\n", b"\r.\r", b"\n.\r\n", b"\r\n.\n", b"\r\n.\r"]):
        outer, inner = ("%s-%d-%s@smuggle.example" % (kind, number, RUN) for kind in ("outer", "inner"))
        raw = Raw.smtp("alice")
        login_raw(raw)
        raw.send(b"MAIL FROM:<%s>\r\n" % ALICE.encode())
        raw.reply()
        raw.send(b"RCPT TO:<%s>\r\n" % BOB.encode())
        raw.reply()
        raw.send(b"DATA\r\n")
        check(raw.reply()[0] == 354, "DATA")
        hidden = b"MAIL FROM:<%s>\r\nRCPT TO:<%s>\r\nDATA\r\n" % (ALICE.encode(), BOB.encode()) + body(inner)
        raw.send(body(outer) + b"first" + end + hidden + b"\r\n.\r\n")
        code, text = raw.reply()
        check(code >= 500 or code == 0, repr(end), "was answered with", code, text)
        raw.close()
        forbidden += [outer, inner]
    return forbidden


def garbage():
    """Over-long lines, random bytes and commands piped ahead of STARTTLS."""
    # RFC 4954 asks a server to take 12,288 octets of a line; no command needs more.
    raw = Raw.smtp("alice")
    raw.send(b"NOOP " + b"x" * 20_000 + b"\r\n")
    check(raw.reply()[0] == 500, "an over-long command")
    raw.send(b"NOOP\r\n")
    check(raw.reply()[0] == 250, "the session did not survive an over-long command")
    raw.close()
    raw = Raw.smtp("alice")
    raw.send(DICE.randbytes(4000).replace(b"\n", b"") + b"\r\nQUIT\r\n")
    check(raw.reply()[0] in (500, 501, 502, 503, 421, 0), "random bytes")
    raw.close()
    # What was sent ahead of the handshake must not be taken for a command after it.
    settings = user("alice")["smtp"]
    raw = Raw(settings["host"], settings["starttls"])
    check(raw.reply()[0] == 220, "greeting")
    raw.send(b"EHLO a.example\r\n")
    check(raw.reply()[0] == 250, "EHLO")
    raw.send(b"STARTTLS\r\nRSET\r\nVRFY injected\r\n")
    check(raw.reply()[0] in (220, 501, 503, 554), "STARTTLS with commands behind it")
    raw.close()


def imap_bad_input():
    """BAD for what is no command, NO or BAD for a literal too large, and the session goes on or says BYE."""
    raw = Raw.imap("alice")
    check(raw.command(b"a", b"FROBNICATE")[-1].startswith(b"a BAD"), "an unknown command")
    check(raw.command(b"b", b"SELECT INBOX")[-1][:5] in (b"b BAD", b"b NO "), "SELECT before LOGIN")
    check(raw.command(b"c", b"NOOP")[-1].startswith(b"c OK"), "the session did not survive")
    raw.send(b"\r\n\0\0\0\r\n)(*&^\r\n")
    raw.send(b"d NOOP\r\n")
    lines = raw.until_tag(b"d")
    check(lines and (lines[-1].startswith(b"d OK") or any(b"BYE" in line for line in lines)), "garbage:", lines)
    raw.close()

    entry = user("alice")
    secret = base64.b64encode(("\0%s\0%s" % (entry["address"], entry["password"])).encode())
    raw = Raw.imap("alice")
    check(raw.command(b"a", b"AUTHENTICATE PLAIN " + secret)[-1].startswith(b"a OK"), "login")
    raw.send(b"b APPEND INBOX {999999999}\r\n")
    answer = raw.line()
    check(answer.startswith((b"b NO", b"b BAD", b"* BYE")), "a literal of a gigabyte:", answer)
    raw.close()

    raw = Raw.imap("alice")
    raw.send(b"a LOGIN " + b"x" * 200_000 + b"\r\n")
    answer = raw.line()
    check(answer == b"" or b"BAD" in answer or b"BYE" in answer, "an over-long line:", answer[:100])
    raw.close()

    for _ in range(5):
        raw = Raw.imap("alice")
        raw.send(DICE.randbytes(3000) + b"\r\n")
        raw.close()
    client = imap("alice")
    ok(client.noop())
    client.logout()


def main():
    """All of it, then a look that no refused mail arrived after a good one, sent last, did."""
    passwords()
    forbidden = envelopes() + too_large() + smuggling()
    garbage()
    imap_bad_input()
    last = "last-%s@refusals.example" % RUN
    client = smtp("alice")
    client.sendmail(ALICE, [BOB], body(last))
    client.quit()
    wait_for_message("bob", last)
    reader = imap("bob")
    ok(reader.select("INBOX"))
    there = message_ids(reader)
    for name in forbidden:
        check(name not in there, "a refused mail was delivered:", name)
    reader.logout()
    print("refusals passed, seed", RUN)


main()
