"""Sends mails from alice to bob while nodes die, and tells which of them were accepted.

    burst.py COUNT LIST

Every mail that is answered with 250 has its number and Message-ID appended to the file LIST before the next is
sent. A mail that is not accepted (a dead connection, 4xx) is not sent again: its fate is unknown, so the next one
gets a new Message-ID; the script goes on until COUNT were accepted. It prints `accepted N` every ten mails, so that
the test can strike in the middle. Every tenth mail carries an attachment large enough to be an object of its own.
"""

import base64
import hashlib
import random
import smtplib
import sys
import time

from ring import RUN, SEED, check, smtp, user

TIME_LIMIT_S = 240


def mail(name, number):
    """A mail whose every byte follows from its Message-ID, so that the census can compare it."""
    dice = random.Random("%d %s" % (SEED, name))
    words = "\r\n".join(hashlib.sha256(b"%d" % dice.getrandbits(64)).hexdigest() for _ in range(20))
    head = (
        "From: alice@epost.test\r\nTo: bob@epost.test\r\nSubject: burst %d\r\n"
        "Date: Sat, 21 Nov 2026 18:00:00 +0000\r\nMessage-ID: <%s>\r\nMIME-Version: 1.0\r\n" % (number, name)
    )
    if number % 10:
        return ("%sContent-Type: text/plain\r\n\r\n%s\r\n" % (head, words)).encode()
    attachment = base64.encodebytes(dice.randbytes(100_000)).decode().replace("\n", "\r\n")
    return (
        '%sContent-Type: multipart/mixed; boundary="b-b"\r\n\r\n--b-b\r\nContent-Type: text/plain\r\n\r\n%s\r\n'
        "--b-b\r\nContent-Type: application/octet-stream\r\nContent-Transfer-Encoding: base64\r\n\r\n%s"
        "--b-b--\r\n" % (head, words, attachment)
    ).encode()


def main():
    """Until COUNT mails were accepted."""
    count, path = int(sys.argv[1]), sys.argv[2]
    alice, bob = user("alice")["address"], user("bob")["address"]
    accepted = tried = 0
    client = None
    end = time.monotonic() + TIME_LIMIT_S
    with open(path, "a", encoding="utf-8") as record:
        while accepted < count:
            check(time.monotonic() < end, "only", accepted, "of", tried, "mails were accepted in", TIME_LIMIT_S, "s")
            name = "%s-%d@burst.example" % (RUN, tried)
            tried += 1
            try:
                if client is None:
                    client = smtp("alice")
                client.sendmail(alice, [bob], mail(name, tried))
            except (OSError, smtplib.SMTPException):
                if client is not None:
                    client.close()
                client = None
                time.sleep(0.2)
                continue
            accepted += 1
            record.write("%d %s\n" % (tried, name))
            record.flush()
            if accepted % 10 == 0:
                print("accepted", accepted, flush=True)
    print("burst: %d accepted of %d tried, seed %s" % (accepted, tried, RUN))


if __name__ == "__main__":
    main()
