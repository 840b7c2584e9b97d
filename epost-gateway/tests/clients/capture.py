"""Captures everything that passes over loopback while a mail is sent and read, and looks for it in clear.

    capture.py MARKERS

Writes the words that must not be found to the file MARKERS, one a line, for the scan of the disks. Needs the right
to open a packet socket; without it ends with code 77, which the test takes for "skipped". Control: a word sent in
clear on purpose must be found, so that a capture that sees nothing cannot pass.
"""

import base64
import socket
import sys
import threading

from ring import DICE, RUN, check, imap, ok, smtp, user, wait_for_message

ETH_P_ALL = 3
SO_RCVBUFFORCE = 33
RECEIVE_BUFFER_BYTES = 128 * 1024 * 1024
SKIPPED = 77


class Capture(threading.Thread):
    """Keeps the bytes of every packet on loopback."""

    def __init__(self):
        super().__init__(daemon=True)
        self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        try:
            self.socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, RECEIVE_BUFFER_BYTES)
        except OSError:
            pass
        self.socket.bind(("lo", 0))
        self.socket.settimeout(0.5)
        self.packets = []
        self.going = True

    def run(self):
        """Until told to stop and nothing more comes."""
        while True:
            try:
                self.packets.append(self.socket.recv(1 << 17))
            except socket.timeout:
                if not self.going:
                    return

    def stop(self):
        """The bytes seen."""
        self.going = False
        self.join()
        return self.packets


def word():
    """A word that nothing contains by chance."""
    return "%032x" % DICE.getrandbits(128)


def plain(marker):
    """Sends a word in clear over UDP and TCP on loopback: the control."""
    receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    receiver.bind(("127.0.0.1", 0))
    socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(marker.encode(), receiver.getsockname())
    listener = socket.create_server(("127.0.0.1", 0))
    client = socket.create_connection(listener.getsockname())
    client.sendall(marker.encode())
    listener.accept()[0].recv(1000)
    client.close()


def main():
    """Send by SMTP, read by IMAP, append a draft; then look for every word in what passed by."""
    subject, body, attached, draft, control = (word() for _ in range(5))
    # 48 bytes a line, so that the word stands in the base64 text at a known place, line after line.
    block = (attached + "0123456789abcdef").encode()
    encoded = b"\r\n".join(base64.b64encode(block) for _ in range(3000))
    name = "secret-%s@capture.example" % RUN
    mail = (
        b"From: alice@epost.test\r\nTo: bob@epost.test\r\nSubject: %s\r\nDate: Sat, 21 Nov 2026 18:00:00 +0000\r\n"
        b'Message-ID: <%s>\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary="b"\r\n\r\n'
        b"--b\r\nContent-Type: text/plain\r\n\r\n%s\r\n--b\r\nContent-Type: application/octet-stream\r\n"
        b"Content-Transfer-Encoding: base64\r\n\r\n%s\r\n--b--\r\n"
        % (subject.encode(), name.encode(), b"\r\n".join([body.encode()] * 200), encoded)
    )
    try:
        capture = Capture()
    except PermissionError:
        sys.exit(SKIPPED)
    capture.start()
    plain(control)
    client = smtp("alice", tls="starttls")
    client.sendmail(user("alice")["address"], [user("bob")["address"]], mail)
    client.quit()
    delivered = wait_for_message("bob", name)
    check(delivered.endswith(mail), "the mail came back altered")
    client = imap("alice", tls="starttls")
    ok(client.append("Drafts", r"(\Draft)", None, b"Subject: %s\r\n\r\n%s\r\n" % (draft.encode(), draft.encode())))
    client.logout()
    packets = capture.stop()

    passwords = [user(who)["password"] for who in ("alice", "bob")]
    forbidden = [subject, body, attached, draft, base64.b64encode(block).decode()] + passwords
    logins = ["\0%s\0%s" % (user(who)["address"], user(who)["password"]) for who in ("alice", "bob")]
    for login in logins:
        forbidden.append(base64.b64encode(login.encode()).decode().rstrip("="))
    check(any(control.encode() in packet for packet in packets), "the capture does not see what is sent in clear")
    for text in forbidden:
        seen = sum(text.encode() in packet for packet in packets)
        check(seen == 0, "in clear on the wire, in", seen, "packets:", text)
    with open(sys.argv[1], "w", encoding="utf-8") as file:
        file.write("\n".join(forbidden))
    total = sum(len(packet) for packet in packets)
    check(total > 3 * len(mail), "only", total, "bytes were captured: fewer than three copies of the mail")
    print("capture passed: %d packets, %d bytes, none in clear" % (len(packets), total))


main()
