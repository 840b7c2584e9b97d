"""One mail from alice to bob, and how it is answered.

    single.py accepted|deferred

`accepted`: answered with 250, and arrives. `deferred`: answered with 451 at RCPT or after DATA, so that the client
keeps it; the session itself goes on.
"""

import smtplib
import sys

from ring import RUN, check, smtp, user, wait_for_message


def main():
    """Send, compare the answer with what is expected."""
    name = "%s@single.example" % RUN
    mail = (
        b"From: alice@epost.test\r\nTo: bob@epost.test\r\nSubject: single\r\nDate: Sat, 21 Nov 2026 18:00:00 +0000\r\n"
        b"Message-ID: <%s>\r\n\r\nhello\r\n" % name.encode()
    )
    client = smtp("alice")
    try:
        client.sendmail(user("alice")["address"], [user("bob")["address"]], mail)
        code = 250
    except smtplib.SMTPRecipientsRefused as error:
        code = next(iter(error.recipients.values()))[0]
    except smtplib.SMTPResponseException as error:
        code = error.smtp_code
    check(code == {"accepted": 250, "deferred": 451}[sys.argv[1]], "the mail was answered with", code)
    check(client.noop()[0] == 250, "the session did not survive")
    client.quit()
    if sys.argv[1] == "accepted":
        wait_for_message("bob", name)
    print("single passed:", code)


main()
