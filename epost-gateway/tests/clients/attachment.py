"""Sends the same attachment in ever new mails, so that the test can watch what is stored.

    attachment.py WRAP NUMBER

One mail from alice to bob with 600 KiB of random bytes (they follow from the seed), in base64 lines of WRAP
characters. Waits until bob has it.
"""

import base64
import random
import sys

from ring import SEED, smtp, split_trace, user, wait_for_message

ATTACHMENT_BYTES = 600 * 1024


def main():
    """Compose, send, wait, compare."""
    wrap, number = int(sys.argv[1]), int(sys.argv[2])
    text = base64.b64encode(random.Random(SEED).randbytes(ATTACHMENT_BYTES))
    lines = b"\r\n".join(text[start : start + wrap] for start in range(0, len(text), wrap))
    name = "same-%d-%d@attachment.example" % (SEED, number)
    mail = (
        b"From: alice@epost.test\r\nTo: bob@epost.test\r\nSubject: the same file, mail %d\r\n"
        b"Date: Sat, 21 Nov 2026 18:00:00 +0000\r\nMessage-ID: <%s>\r\nMIME-Version: 1.0\r\n"
        b'Content-Type: multipart/mixed; boundary="mark-%d"\r\n\r\n--mark-%d\r\nContent-Type: text/plain\r\n\r\n'
        b"See the file.\r\n--mark-%d\r\nContent-Type: application/pdf\r\nContent-Transfer-Encoding: base64\r\n\r\n"
        b"%s\r\n--mark-%d--\r\n" % (number, name.encode(), number, number, number, lines, number)
    )
    client = smtp("alice")
    client.sendmail(user("alice")["address"], [user("bob")["address"]], mail)
    client.quit()
    split_trace(wait_for_message("bob", name), mail)
    print("attachment passed: %d bytes in lines of %d" % (ATTACHMENT_BYTES, wrap))


main()
