"""mbsync keeps a Maildir and a folder the same, both ways.

    mbsync.py SCRATCH_FOLDER

Method: messages put in by imaplib are pulled; then the Maildir is changed by hand (a new message, a flag, a
deletion) and pushed; after every run the Maildir's files are compared with what IMAP gives. mbsync stores lines
with LF and adds an X-TUID header of its own, which is taken out before comparing.
"""

import os
import re
import subprocess
import sys
import time

from ring import DICE, RUN, certificate, check, fetched, flags, imap, ok, uids, user

FOLDER = "mbsync-" + RUN
TIME_LIMIT_S = 120
LETTERS = {"S": "\\Seen", "F": "\\Flagged", "R": "\\Answered", "D": "\\Draft", "T": "\\Deleted"}


def message(number):
    """A message with a base64 attachment and a long header."""
    lines = "\r\n".join("%064x" % DICE.getrandbits(256) for _ in range(DICE.randrange(1, 200)))
    return (
        "From: Carol <carol@example.org>\r\nTo: alice@epost.test\r\nSubject: pull %d\r\n"
        "References: <a@example.org>\r\n <b@example.org>\r\nMessage-ID: <%s-%d@mbsync.example>\r\n\r\n%s\r\n"
        % (number, RUN, number, lines)
    ).encode()


def configuration(scratch):
    """Writes mbsync's configuration and returns its path."""
    entry, settings = user("alice"), user("alice")["imap"]
    with open(os.path.join(scratch, "certificate.pem"), "w", encoding="utf-8") as file:
        file.write(certificate("alice", "imap"))
    path = os.path.join(scratch, "mbsyncrc")
    with open(path, "w", encoding="utf-8") as file:
        file.write(
            """IMAPAccount ring
Host {host}
Port {port}
User {user}
Pass {password}
SSLType IMAPS
CertificateFile {scratch}/certificate.pem

IMAPStore far
Account ring

MaildirStore near
Path {scratch}/mail/
Inbox {scratch}/inbox
SubFolders Verbatim

Channel both
Far :far:
Near :near:
Patterns {folder}
Create Both
Expunge Both
SyncState *
""".format(
                # mbsync compares the certificate's DNS names only, so an address would not do.
                host="localhost",
                port=settings["tls"],
                user=entry["address"],
                password=entry["password"],
                scratch=scratch,
                folder=FOLDER,
            )
        )
    os.chmod(path, 0o600)
    os.makedirs(os.path.join(scratch, "mail"), exist_ok=True)
    return path


def sync(path):
    """One run of mbsync, which must succeed."""
    run = subprocess.run(
        ["mbsync", "-c", path, "-a"], capture_output=True, text=True, timeout=TIME_LIMIT_S, check=False
    )
    check(run.returncode == 0, "mbsync failed:", run.stdout, run.stderr)


def maildir(scratch):
    """[(content with CRLF, set of flags, path)] of every message in the Maildir."""
    found = []
    for part in ("cur", "new"):
        folder = os.path.join(scratch, "mail", FOLDER, part)
        for name in os.listdir(folder):
            with open(os.path.join(folder, name), "rb") as file:
                content = file.read().replace(b"\n", b"\r\n")
            letters = name.rsplit(":2,", 1)[1] if ":2," in name else ""
            found.append((without_tuid(content), {LETTERS[letter] for letter in letters}, os.path.join(folder, name)))
    return found


def without_tuid(content):
    """The message less mbsync's own header."""
    return re.sub(rb"(?m)^X-TUID: [^\r]*\r\n", b"", content, count=1)


def compare(client, scratch, what):
    """The Maildir and the folder hold the same messages with the same flags."""
    ok(client.select(FOLDER, readonly=True))
    far = sorted(
        (without_tuid(parts["BODY[]"]), sorted(flags(client, uid)))
        for uid, parts in fetched(ok(client.uid("FETCH", "1:*", "(UID BODY.PEEK[])"))).items()
    )
    near = sorted((content, sorted(marks)) for content, marks, _ in maildir(scratch))
    check(len(far) == len(near), what, "- over IMAP", len(far), "messages, in the Maildir", len(near))
    check([content for content, _ in far] == [content for content, _ in near], what, "- contents differ")
    check(far == near, what, "- flags differ:", [marks for _, marks in far], [marks for _, marks in near])
    ok(client.unselect())
    return len(far)


def main():
    """Pull, change both sides, push, and a last run that finds nothing to do."""
    scratch = sys.argv[1]
    path = configuration(scratch)
    client = imap("alice")
    ok(client.create(FOLDER))
    for number in range(20):
        given = [None, r"(\Seen)", r"(\Seen \Answered)", r"(\Flagged)"][number % 4]
        ok(client.append(FOLDER, given, None, message(number)))
    sync(path)
    check(compare(client, scratch, "after the pull") == 20, "20 messages were put in")

    # On our side: one more. In the Maildir: a new message, one flagged, one deleted.
    ok(client.append(FOLDER, None, None, message(20)))
    files = sorted(maildir(scratch), key=lambda entry: entry[0])
    box = os.path.join(scratch, "mail", FOLDER)
    new = message(21).replace(b"\r\n", b"\n")
    with open(os.path.join(box, "cur", "%d.M1P1.host:2,S" % int(time.time())), "wb") as file:
        file.write(new)
    kept, marks, name = files[0]
    head, letters = os.path.basename(name).rsplit(":2,", 1) if ":2," in name else (os.path.basename(name), "")
    os.rename(name, os.path.join(box, "cur", head + ":2," + "".join(sorted(set(letters) | {"F", "R"}))))
    os.rename(files[1][2], os.path.join(box, "cur", os.path.basename(files[1][2]).rsplit(":2,", 1)[0] + ":2,ST"))
    sync(path)
    check(compare(client, scratch, "after the push") == 21, "20 + 1 + 1 - 1 messages")
    ok(client.select(FOLDER, readonly=True))
    numbered = uids(client, "HEADER", "Message-ID", "%s-21@" % RUN)
    check(len(numbered) == 1, "the pushed message is there", len(numbered), "times")
    check(not uids(client, "DELETED"), "a message deleted in the Maildir is still there")
    first = [uid for uid, parts in fetched(ok(client.uid("FETCH", "1:*", "(UID BODY.PEEK[])"))).items()
             if without_tuid(parts["BODY[]"]) == kept]
    check({"\\Flagged", "\\Answered"} <= flags(client, first[0]), "flags set in the Maildir are", flags(client, first[0]))
    before = {uid: flags(client, uid) for uid in uids(client, "ALL")}
    ok(client.unselect())
    sync(path)
    ok(client.select(FOLDER, readonly=True))
    check(before == {uid: flags(client, uid) for uid in uids(client, "ALL")}, "a run with nothing to do did something")
    ok(client.unselect())
    ok(client.delete(FOLDER))
    client.logout()
    print("mbsync passed, seed", RUN)


main()
