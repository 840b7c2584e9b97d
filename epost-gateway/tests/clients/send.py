"""Alice sends, bob reads: text, attachments, many recipients, a blind copy; over STARTTLS and implicit TLS.

Goal: what smtplib was given is what imaplib gets, but for the closed list: Bcc removed, trace headers in front.
"""

import email
import email.message
import email.policy

from ring import DICE, RUN, check, smtp, split_trace, user, wait_for_message


def compose(number, to, attachment=0):
    """A mail with a text and perhaps a random attachment, as Python's email package writes it."""
    mail = email.message.EmailMessage(policy=email.policy.SMTP)
    mail["From"] = "Alice <%s>" % user("alice")["address"]
    mail["To"] = ", ".join(to)
    mail["Subject"] = "Grüße %d" % number
    mail["Date"] = "Sat, 21 Nov 2026 18:00:00 +0000"
    mail["Message-ID"] = "<%s-%d@send.example>" % (RUN, number)
    mail.set_content("Lieber Bob,\n\n.ein Punkt am Anfang\n..zwei\n\n%s\n" % ("wort " * 200))
    if attachment:
        mail.add_attachment(DICE.randbytes(attachment), "application", "pdf", filename="Bericht äöü.pdf")
    return mail


def name_of(mail):
    """The Message-ID without its angles."""
    return mail["Message-ID"].strip("<>")


def plain_and_attached():
    """Small text over one port, growing attachments over the other."""
    alice, bob = user("alice")["address"], user("bob")["address"]
    for number, (tls, attachment) in enumerate(
        [("starttls", 0), ("tls", 0), ("starttls", 3_000), ("tls", 90_000), ("tls", 6_000_000)]
    ):
        mail = compose(number, [bob], attachment)
        client = smtp("alice", tls=tls)
        check(client.sendmail(alice, [bob], mail.as_bytes()) == {}, "a recipient was refused")
        client.quit()
        delivered = wait_for_message("bob", name_of(mail))
        split_trace(delivered, mail.as_bytes())
        parsed = email.message_from_bytes(delivered, policy=email.policy.SMTP)
        check(parsed["Subject"] == mail["Subject"], "the subject is", parsed["Subject"])


def blind_copy():
    """Bob is named, alice gets a blind copy: both have the mail, neither sees the Bcc, and nothing else changed."""
    alice, bob = user("alice")["address"], user("bob")["address"]
    mail = compose(100, [bob], 2_000)
    without = mail.as_bytes()
    head, rest = without.split(b"\r\nSubject:", 1)
    with_bcc = head + b"\r\nBcc: Alice <%s>,\r\n someone.else@epost.test\r\nSubject:" % alice.encode() + rest
    client = smtp("alice")
    client.sendmail(alice, [bob, alice], with_bcc)
    client.quit()
    for reader in ("bob", "alice"):
        delivered = wait_for_message(reader, name_of(mail))
        check(b"someone.else" not in delivered, reader, "sees the blind copy")
        split_trace(delivered, without)


def several_in_one_session():
    """Several mails in one session, with RSET and NOOP between, keep apart."""
    alice, bob = user("alice")["address"], user("bob")["address"]
    client = smtp("alice", tls="starttls")
    mails = [compose(200 + number, [bob]) for number in range(5)]
    for mail in mails:
        check(client.noop()[0] == 250 and client.rset()[0] == 250, "NOOP or RSET")
        client.send_message(mail, alice, [bob])
    # The same recipient twice in one envelope is one mail.
    twice = compose(300, [bob])
    client.sendmail(alice, [bob, bob], twice.as_bytes())
    client.quit()
    for mail in mails + [twice]:
        wait_for_message("bob", name_of(mail))


plain_and_attached()
blind_copy()
several_in_one_session()
print("send passed, seed", RUN)
