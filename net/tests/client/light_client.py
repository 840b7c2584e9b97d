"""A client of a ring, of another make than the nodes: stores a block and finds it again.

    light_client.py FOLDER put FILE     prints the block's key
    light_client.py FOLDER get KEY      writes the block to standard output
    light_client.py FOLDER ring         asks for a newer ring document, and says which epoch is in force
    light_client.py --check FRAMES      decodes and encodes each frame of a file of golden frames

FOLDER is what `epost org add-client` made: client.key, client.crt, authority.crt, ring.epost. Ends with 0 when done,
1 when the ring did not do it, 2 when what it was given is not in order.
"""

import asyncio
import itertools
import os
import ssl
import sys
import time

from aioquic.asyncio.client import connect
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import ConnectionTerminated, DatagramFrameReceived, StreamDataReceived
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import load_der_private_key

import epost
from epost import Frame, ProtocolError, Ring

# A payload above this travels on the bulk connection.
STREAM_PAYLOAD_MAX = 64 << 10
PATIENCE = 10.0


class Refused(Exception):
    """A node did not do what was asked."""


class Folder:
    """What the organisation has given this client."""

    def __init__(self, path):
        def read(name):
            with open(os.path.join(path, name), "rb") as file:
                return file.read()

        self.path = path
        self.key = load_der_private_key(read("client.key"), None)
        self.certificate = x509.load_der_x509_certificate(read("client.crt"))
        self.authority = x509.load_der_x509_certificate(read("authority.crt")).public_key()
        self.ring = Ring(read("ring.epost"), self.authority)
        self.nonce = nonce_of(self.certificate, self.authority, self.ring.ring)

    def keep_ring(self, document):
        ring = Ring(document, self.authority)
        if ring.ring != self.ring.ring or ring.epoch <= self.ring.epoch:
            return
        with open(os.path.join(self.path, "ring.epost.new"), "wb") as file:
            file.write(document)
        os.replace(os.path.join(self.path, "ring.epost.new"), os.path.join(self.path, "ring.epost"))
        self.ring = ring


def nonce_of(certificate, authority, ring):
    """Section 2: the authority's signature, and the one URI that names ring and nonce."""
    authority.verify(certificate.signature, certificate.tbs_certificate_bytes)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    (uri,) = names.get_values_for_type(x509.UniformResourceIdentifier)
    scheme, of_ring, nonce = uri.split(":")
    if scheme != "epost-node" or of_ring != ring.hex():
        raise ProtocolError("a certificate of another ring")
    return bytes.fromhex(nonce)


class Protocol(QuicConnectionProtocol):
    """One connection: frames out on streams of their own, frames in from streams and datagrams."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.streams = {}
        self.waiting = {}
        self.greeted = asyncio.get_running_loop().create_future()

    def quic_event_received(self, event):
        if isinstance(event, StreamDataReceived):
            data = self.streams.setdefault(event.stream_id, bytearray())
            data += event.data
            if len(data) > epost.HEADER.size + epost.BODY_MAX + epost.PAYLOAD_MAX:
                self.close()
            elif event.end_stream:
                self.take(self.streams.pop(event.stream_id))
        elif isinstance(event, DatagramFrameReceived):
            self.take(event.data)
        elif isinstance(event, ConnectionTerminated):
            lost = Refused(f"the node ended the connection: {event.reason_phrase or event.error_code}")
            for future in [*self.waiting.values(), self.greeted]:
                if not future.done():
                    future.set_exception(lost)
            self.greeted.exception()

    def take(self, data):
        frame = Frame.decode(data)
        future = self.greeted if frame.type == epost.HELLO else self.waiting.get(frame.request)
        if future is not None and not future.done():
            future.set_result(frame)

    def say(self, frame, bidirectional=False):
        stream = self._quic.get_next_available_stream_id(is_unidirectional=not bidirectional)
        self._quic.send_stream_data(stream, frame.encode(), end_stream=True)
        self.transmit()

    async def ask(self, frame):
        self.waiting[frame.request] = asyncio.get_running_loop().create_future()
        self.say(frame)
        try:
            return await self.waiting[frame.request]
        finally:
            del self.waiting[frame.request]


class Client:
    def __init__(self, folder):
        self.folder = folder
        self.requests = itertools.count(1)

    def connection(self, member, is_bulk):
        configuration = QuicConfiguration(
            is_client=True,
            alpn_protocols=["epost-bulk/1" if is_bulk else "epost/1"],
            # The node's certificate has no host name; `greet` checks what the protocol says.
            verify_mode=ssl.CERT_NONE,
            max_datagram_frame_size=65_536,
        )
        configuration.certificate, configuration.private_key = self.folder.certificate, self.folder.key
        host, _, port = member.host.rpartition(":")
        return connect(host, int(port), configuration=configuration, create_protocol=Protocol)

    async def greet(self, protocol, member):
        # The handshake has proved that the node has the key of this certificate.
        shown = protocol._quic.tls._peer_certificate
        ring = self.folder.ring
        if nonce_of(shown, self.folder.authority, ring.ring) != member.nonce:
            raise Refused("another node is at this address")
        own = epost.node_id(ring.ring, self.folder.nonce, 0)
        hello = {0: ring.ring, 1: ring.epoch, 2: own, 3: 1}
        protocol.say(Frame(epost.HELLO, 0, hello), bidirectional=True)
        answer = (await protocol.greeted).body
        if answer[0] != ring.ring or answer[2] != epost.node_id(ring.ring, member.nonce, 0):
            raise Refused("the node's greeting is not that of its certificate")

    async def ask(self, member, frame):
        """Asks over the connection that the frame belongs on; answers with a large payload need the bulk one as well."""
        async with asyncio.timeout(PATIENCE):
            async with self.connection(member, False) as control, self.connection(member, True) as bulk:
                await self.greet(control, member)
                await self.greet(bulk, member)
                # Whichever connection the answer takes.
                bulk.waiting = control.waiting
                way = bulk if len(frame.payload) > STREAM_PAYLOAD_MAX else control
                return await way.ask(frame)

    async def put(self, block):
        key = epost.content_key(block)
        ring = self.folder.ring
        expiry = int(time.time()) + ring.lease
        body = {0: ring.scope(), 1: key, 2: expiry}
        quorum = min(ring.k, len({member.nonce for member, _ in ring.nearest(key)})) // 2 + 1
        complaints = []
        # The nearest that answers is the key's root.
        for member, index in ring.nearest(key)[:4]:
            frame = Frame(epost.INSERT, next(self.requests), body, block, receiver=index)
            try:
                answer = await self.ask(member, frame)
            except (Refused, OSError, asyncio.TimeoutError) as error:
                complaints.append(f"{member.host}: {error or 'no answer'}")
                continue
            outcome, copies = answer.body[0], answer.body[1]
            if answer.type == epost.INSERTED and outcome[0] == 0 and copies >= quorum:
                return key
            complaints.append(f"{member.host}: outcome {outcome}, {copies} copies")
        raise Refused("not stored: " + "; ".join(complaints))

    async def get(self, key):
        ring = self.folder.ring
        complaints = []
        for member, index in ring.nearest(key)[: ring.k + 3]:
            frame = Frame(epost.FETCH, next(self.requests), {0: ring.scope(), 1: key}, receiver=index)
            try:
                answer = await self.ask(member, frame)
            except (Refused, OSError, asyncio.TimeoutError) as error:
                complaints.append(f"{member.host}: {error or 'no answer'}")
                continue
            if answer.body[0][0] == 0 and epost.content_key(answer.payload) == key:
                return answer.payload
            complaints.append(f"{member.host}: outcome {answer.body[0]}")
        raise Refused("not found: " + "; ".join(complaints))

    async def newer_ring(self):
        for member in self.folder.ring.members:
            if member.state != epost.ACTIVE:
                continue
            frame = Frame(epost.RING_REQUEST, next(self.requests), {0: self.folder.ring.epoch - 1})
            try:
                answer = await self.ask(member, frame)
            except (Refused, OSError, asyncio.TimeoutError):
                continue
            self.folder.keep_ring(answer.payload)
            return self.folder.ring.epoch
        raise Refused("no node has answered")


def check(path):
    """Each golden frame decodes, and encodes to the same bytes."""
    count = 0
    with open(path, encoding="ascii") as file:
        for line in file:
            if line.strip() and not line.startswith("#"):
                name, data = line.split()
                data = bytes.fromhex(data)
                if Frame.decode(data).encode() != data:
                    raise ProtocolError(f"{name} encodes differently")
                count += 1
    print(f"{count} frames")


async def main(arguments):
    match arguments:
        case ["--check", path]:
            check(path)
        case [folder, "put", path]:
            with open(path, "rb") as file:
                print((await Client(Folder(folder)).put(file.read())).hex())
        case [folder, "get", key]:
            sys.stdout.buffer.write(await Client(Folder(folder)).get(bytes.fromhex(key)))
        case [folder, "ring"]:
            print(await Client(Folder(folder)).newer_ring())
        case _:
            print(__doc__, file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    try:
        sys.exit(asyncio.run(main(sys.argv[1:])))
    except Refused as refusal:
        print(f"light_client: {refusal}", file=sys.stderr)
        sys.exit(1)
    except (ProtocolError, InvalidSignature, OSError, ValueError) as error:
        print(f"light_client: {type(error).__name__}: {error}", file=sys.stderr)
        sys.exit(2)
