"""What the client scripts beside this file share: how to reach a running ring with the standard library.

The scripts are run by the Rust tests one level up with EPOST_UP naming the ring's up.json and EPOST_SEED a number
that random choices follow. They speak through smtplib and imaplib, which nobody here wrote, so that a
misunderstanding of SMTP or IMAP on our side cannot cancel out. A script that ends without an exception has passed.
"""

import imaplib
import json
import os
import random
import re
import smtplib
import socket
import ssl
import time

SEED = int(os.environ.get("EPOST_SEED", "1"))
DICE = random.Random(SEED)
# One number per run, so that scripts sharing a ring do not meet in each other's folders and messages.
RUN = "%d-%d" % (SEED, os.getpid())
PATIENCE_S = 60
# RFC 5321 lets a client wait 10 minutes for the answer to its mail; programs that people use wait one or two.
SOCKET_TIMEOUT_S = 100
# imaplib refuses lines over a megabyte by default; FETCH of many flags may be longer.
imaplib._MAXLINE = 20_000_000


class Failed(Exception):
    """What was promised did not happen."""


def check(condition, *what):
    """An assertion that python -O cannot remove."""
    if not condition:
        raise Failed(" ".join(str(word) for word in what))


def user(name):
    """The entry of up.json for alice or bob."""
    with open(os.environ["EPOST_UP"], encoding="utf-8") as file:
        up = json.load(file)
    for entry in up["users"]:
        if entry["address"] == "%s@%s" % (name, up["domain"]):
            return entry
    raise Failed("up.json names no user", name)


_CERTIFICATES = {}


def certificate(name, service):
    """The PEM certificate a listener presents, as a user would confirm it once in a mail client."""
    settings = user(name)[service]
    place = (settings["host"], settings["tls"])
    if place not in _CERTIFICATES:
        # The listener may still be starting after a fault.
        _CERTIFICATES[place] = patiently(lambda: ssl.get_server_certificate(place, timeout=SOCKET_TIMEOUT_S))
    return _CERTIFICATES[place]


def trust(name, service):
    """A context that accepts exactly the certificate presented on the TLS port, and checks the host name."""
    context = ssl.create_default_context(cadata=certificate(name, service))
    context.verify_flags &= ~getattr(ssl, "VERIFY_X509_STRICT", 0)
    return context


def imap(name, tls="tls", login=True, retry=False):
    """A logged-in imaplib session over implicit TLS or STARTTLS."""

    def connect():
        entry = user(name)
        settings = entry["imap"]
        context = trust(name, "imap")
        if tls == "tls":
            client = imaplib.IMAP4_SSL(
                settings["host"], settings["tls"], ssl_context=context, timeout=SOCKET_TIMEOUT_S
            )
        else:
            client = imaplib.IMAP4(settings["host"], settings["starttls"], timeout=SOCKET_TIMEOUT_S)
            check("LOGINDISABLED" in client.capabilities, "passwords are accepted in clear")
            client.starttls(context)
        if login:
            client.login(entry["address"], entry["password"])
        return client

    return patiently(connect) if retry else connect()


def smtp(name, tls="tls", login=True):
    """A logged-in smtplib session over implicit TLS or STARTTLS."""
    entry = user(name)
    settings = entry["smtp"]
    context = trust(name, "smtp")
    if tls == "tls":
        client = smtplib.SMTP_SSL(settings["host"], settings["tls"], context=context, timeout=SOCKET_TIMEOUT_S)
    else:
        client = smtplib.SMTP(settings["host"], settings["starttls"], timeout=SOCKET_TIMEOUT_S)
        client.ehlo()
        check(not client.has_extn("auth"), "AUTH is offered before TLS")
        client.starttls(context=context)
    client.ehlo()
    if login:
        client.login(entry["address"], entry["password"])
    return client


def patiently(attempt, seconds=PATIENCE_S):
    """Repeats an attempt that may meet a node that is down or not ready, until it works or time is up."""
    end = time.monotonic() + seconds
    while True:
        try:
            return attempt()
        except (OSError, EOFError, imaplib.IMAP4.error, smtplib.SMTPException):
            if time.monotonic() > end:
                raise
            time.sleep(0.3)


def until(what, probe, seconds=PATIENCE_S):
    """Waits until the probe returns something true, and returns it."""
    end = time.monotonic() + seconds
    while True:
        result = probe()
        if result:
            return result
        check(time.monotonic() < end, "waited", seconds, "s in vain for", what)
        time.sleep(0.2)


def ok(reply):
    """The data of an imaplib reply, which must be OK."""
    kind, data = reply
    check(kind == "OK", "IMAP said", kind, data)
    return data


def refused(reply):
    """The text of an imaplib reply, which must be NO."""
    kind, data = reply
    check(kind == "NO", "IMAP said", kind, data, "where NO was due")
    return data


def fetched(data):
    """UID -> {item: bytes} of a UID FETCH of literals: the item is what stands before the literal."""
    messages = {}
    for part in data:
        if not isinstance(part, tuple):
            continue
        head, body = part
        uid = re.search(rb"UID (\d+)", head)
        check(uid, "no UID in", head)
        messages.setdefault(int(uid.group(1)), {})[head.split()[-2].decode()] = body
    return messages


def uids(client, *criteria):
    """The UIDs a search finds, ascending."""
    data = ok(client.uid("SEARCH", *criteria))
    return [int(word) for word in (data[0] or b"").split()]


def flags(client, uid):
    """The flags of one message, without \\Recent."""
    data = ok(client.uid("FETCH", str(uid), "(FLAGS)"))
    found = imaplib.ParseFlags(data[0] if isinstance(data[0], bytes) else data[0][0])
    return {flag.decode() for flag in found} - {"\\Recent"}


def message_ids(client):
    """Message-ID -> how often it is in the selected folder, and the UID of the last."""
    client.noop()
    found = {}
    data = client.uid("FETCH", "1:*", "(UID BODY.PEEK[HEADER.FIELDS (MESSAGE-ID)])")
    if data[0] != "OK":
        return found
    for part in data[1]:
        if isinstance(part, tuple):
            name = re.search(rb"<([^>]*)>", part[1])
            if name:
                uid = int(re.search(rb"UID (\d+)", part[0]).group(1))
                count = found.get(name.group(1).decode(), (0, 0))[0]
                found[name.group(1).decode()] = (count + 1, uid)
    return found


def wait_for_message(name, message_id, folder="INBOX", seconds=PATIENCE_S):
    """The bytes of the message with this Message-ID in the user's folder, once it is there; never twice."""
    client = imap(name)
    ok(client.select(folder))
    count, uid = until(message_id, lambda: message_ids(client).get(message_id), seconds)
    check(count == 1, message_id, "is there", count, "times")
    whole = fetched(ok(client.uid("FETCH", str(uid), "(UID BODY.PEEK[])")))[uid]["BODY[]"]
    client.logout()
    return whole


# Header fields a delivery may put in front of a message, and no others (DESIGN section 7, the closed list).
TRACE = re.compile(rb"(?i)^(return-path|received|delivered-to|authentication-results|x-epost-[a-z0-9-]+):")


def split_trace(delivered, submitted):
    """The header fields in front of what was submitted; the rest must be what was submitted, byte for byte."""
    check(delivered.endswith(submitted), "the submitted bytes came back altered:", delivered[:600], submitted[:600])
    front = delivered[: len(delivered) - len(submitted)]
    for line in front.split(b"\r\n"):
        check(line == b"" or line[:1] in b" \t" or TRACE.match(line), "not a trace header:", line)
    check(front == b"" or front.endswith(b"\r\n"), "trace headers do not end in CRLF")
    return front


class Raw:
    """An IMAP or SMTP connection with nothing between the script and the socket, for what libraries cannot say."""

    def __init__(self, host, port, context=None):
        self.socket = socket.create_connection((host, port), timeout=SOCKET_TIMEOUT_S)
        if context:
            self.socket = context.wrap_socket(self.socket, server_hostname=host)
        self.buffer = b""

    @classmethod
    def imap(cls, name):
        """Implicit TLS, greeted, not logged in."""
        settings = user(name)["imap"]
        raw = cls(settings["host"], settings["tls"], trust(name, "imap"))
        check(raw.line().startswith(b"* OK"), "no greeting")
        return raw

    @classmethod
    def smtp(cls, name):
        """Implicit TLS, greeted, not logged in."""
        settings = user(name)["smtp"]
        raw = cls(settings["host"], settings["tls"], trust(name, "smtp"))
        check(raw.reply()[0] == 220, "no greeting")
        return raw

    def send(self, data):
        """Sends bytes as they are; a server that has hung up already is no error here."""
        try:
            self.socket.sendall(data)
        except OSError:
            pass

    def line(self):
        """One line without its end; empty when the server has hung up."""
        while b"\n" not in self.buffer:
            try:
                more = self.socket.recv(65536)
            except (ConnectionError, ssl.SSLError):
                more = b""
            if not more:
                rest, self.buffer = self.buffer, b""
                return rest
            self.buffer += more
        line, self.buffer = self.buffer.split(b"\n", 1)
        return line.rstrip(b"\r")

    def reply(self):
        """One SMTP reply: (code, text); code 0 when the server has hung up."""
        lines = []
        while True:
            line = self.line()
            if not line:
                return 0, b"\n".join(lines)
            lines.append(line)
            if line[3:4] != b"-":
                return int(line[:3]), b"\n".join(lines)

    def command(self, tag, text):
        """Sends one IMAP command and returns its lines up to and with the tagged one; the last tells how it ended."""
        self.send(tag + b" " + text + b"\r\n")
        return self.until_tag(tag)

    def until_tag(self, tag):
        """The lines up to and with the tagged one, or to a BYE and the end."""
        lines = []
        while True:
            line = self.line()
            if not line:
                return lines
            lines.append(line)
            if line.startswith(tag + b" "):
                return lines

    def close(self):
        """Hangs up."""
        self.socket.close()
