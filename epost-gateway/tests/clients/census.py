"""Every mail of the list is in bob's inbox exactly once, and is what was sent.

    census.py LIST

Waits, within bounds, until all are there; then once more a while later, so that a duplicate that comes late counts.
"""

import re
import sys
import time

from ring import check, fetched, imap, message_ids, ok, patiently, split_trace, until
from burst import mail

SECONDS_MAX = 180
SETTLE_S = 5


def inbox():
    """Message-ID -> (count, uid) of bob's inbox, over a connection of its own: nodes may still be starting."""

    def look():
        client = imap("bob")
        ok(client.select("INBOX"))
        there = message_ids(client)
        client.logout()
        return there

    return patiently(look, SECONDS_MAX)


def main():
    """Waits, counts, settles, counts again, compares bytes."""
    with open(sys.argv[1], encoding="utf-8") as file:
        sent = {name: int(number) for number, name in (line.split() for line in file)}
    check(sent, "the list is empty")
    missing = lambda: sorted(set(sent) - set(inbox()))
    try:
        until("every accepted mail", lambda: not missing(), SECONDS_MAX)
    except Exception:
        print("missing:", missing()[:20])
        raise
    time.sleep(SETTLE_S)
    there = inbox()
    twice = {name: there[name][0] for name in sent if there[name][0] != 1}
    check(not twice, "not exactly once:", twice)
    client = imap("bob", retry=True)
    ok(client.select("INBOX"))
    for name, number in sent.items():
        uid = there[name][1]
        body = fetched(ok(client.uid("FETCH", str(uid), "(UID BODY.PEEK[])")))[uid]["BODY[]"]
        split_trace(body, mail_of(name, number))
    # Mails that were not accepted may have arrived all the same, but none of them twice.
    run = next(iter(sent)).rsplit("-", 1)[0]
    for name, (count, _) in there.items():
        check(not name.startswith(run) or count == 1, name, "is there", count, "times")
    client.logout()
    extra = sum(1 for name in there if name.startswith(run) and name not in sent)
    print("census: %d accepted mails are there exactly once, %d more that got no answer" % (len(sent), extra))


def mail_of(name, number):
    """The bytes the burst sent under this name."""
    check(re.search(r"@burst\.example$", name), name, "is not of a burst")
    return mail(name, number)


main()
