"""ePOST's wire protocol, version 1, as docs/protocol.md has it: names, frames, the ring document.

Written from that document alone, so that it shows whether the document is enough. It shares nothing with the node.
"""

import struct
from dataclasses import dataclass

from blake3 import blake3
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

RING = 1 << 160
BODY_MAX = 65_536
PAYLOAD_MAX = 4_259_840
HEADER = struct.Struct("<BBHHHQII")
# Section 4: the types that have a payload.
WITH_PAYLOAD = {11, 12, 16, 18, 21, 32, 33, 43, 45, 48}

HELLO, PING, PONG, RING_REQUEST, RING_DOCUMENT = 1, 2, 3, 10, 11
INSERT, INSERTED, FETCH, FETCH_ANSWER, EXTEND, EXTENDED = 16, 17, 20, 21, 22, 23
CONTENT = 1
ACTIVE, CLIENT = 0, 3


class ProtocolError(Exception):
    """Bytes that are not what the document says."""


# --- names (section 1) ------------------------------------------------------------------------------------------


def derive(context, data):
    return blake3(data, derive_key_context=context).digest()


def content_key(block):
    return bytes([CONTENT]) + derive("ePOST 2026 name content", block)


def placement(key):
    return int.from_bytes(key[1:21], "big")


def node_id(ring, nonce, index):
    return derive("ePOST 2026 node id", ring + nonce + struct.pack("<H", index))[:20]


def distance(a, b):
    way = (a - b) % RING
    return min(way, RING - way)


# --- CBOR, as far as it is used (RFC 8949): integers, byte and text strings, arrays, maps, booleans ----------------


def encode_value(value):
    if isinstance(value, bool):
        return b"\xf5" if value else b"\xf4"
    if isinstance(value, int):
        return head(0, value) if value >= 0 else head(1, -1 - value)
    if isinstance(value, bytes):
        return head(2, len(value)) + value
    if isinstance(value, str):
        text = value.encode()
        return head(3, len(text)) + text
    if isinstance(value, list):
        return head(4, len(value)) + b"".join(map(encode_value, value))
    if isinstance(value, dict):
        pairs = (encode_value(key) + encode_value(item) for key, item in sorted(value.items()))
        return head(5, len(value)) + b"".join(pairs)
    raise TypeError(f"no encoding for {type(value)}")


def head(major, number):
    for information, size in ((24, 1), (25, 2), (26, 4), (27, 8)):
        if number < 24:
            return bytes([major << 5 | number])
        if number < 1 << (8 * size):
            return bytes([major << 5 | information]) + number.to_bytes(size, "big")
    raise OverflowError(number)


def decode_value(data):
    """One value, filling `data` exactly."""
    value, rest = take_value(data, 8)
    if rest:
        raise ProtocolError("bytes after the value")
    return value


def take_value(data, depth):
    if not data or depth == 0:
        raise ProtocolError("CBOR ends early, or is nested too deeply")
    major, information = data[0] >> 5, data[0] & 31
    if data[0] in (0xF4, 0xF5):
        return data[0] == 0xF5, data[1:]
    if information < 24:
        number, rest = information, data[1:]
    elif information < 28:
        size = 1 << (information - 24)
        number, rest = int.from_bytes(data[1 : 1 + size], "big"), data[1 + size :]
        if len(data) < 1 + size:
            raise ProtocolError("CBOR ends early")
    else:
        raise ProtocolError("indefinite lengths are not used")
    if major == 0:
        return number, rest
    if major == 1:
        return -1 - number, rest
    if major in (2, 3):
        if len(rest) < number:
            raise ProtocolError("CBOR ends early")
        piece = bytes(rest[:number])
        return (piece if major == 2 else piece.decode()), rest[number:]
    if major == 4:
        items = []
        for _ in range(number):
            item, rest = take_value(rest, depth - 1)
            items.append(item)
        return items, rest
    if major == 5:
        pairs = {}
        for _ in range(number):
            key, rest = take_value(rest, depth - 1)
            pairs[key], rest = take_value(rest, depth - 1)
        return pairs, rest
    raise ProtocolError("a kind of CBOR that is not used")


# --- frames (section 4) -----------------------------------------------------------------------------------------


@dataclass
class Frame:
    type: int
    request: int
    body: dict | None = None
    payload: bytes = b""
    sender: int = 0
    receiver: int = 0

    def encode(self):
        body = b"" if self.body is None else encode_value(self.body)
        header = HEADER.pack(
            1, self.type, 0, self.sender, self.receiver, self.request, len(body), len(self.payload)
        )
        return header + body + self.payload

    @staticmethod
    def decode(data):
        if len(data) < HEADER.size:
            raise ProtocolError("shorter than a header")
        version, kind, _, sender, receiver, request, body, payload = HEADER.unpack(data[: HEADER.size])
        if version != 1 or body > BODY_MAX or payload > PAYLOAD_MAX:
            raise ProtocolError("another version, or too long")
        if payload and kind not in WITH_PAYLOAD:
            raise ProtocolError(f"type {kind} has no payload")
        if len(data) != HEADER.size + body + payload:
            raise ProtocolError("the lengths are not the frame's")
        at = HEADER.size + body
        value = decode_value(data[HEADER.size : at]) if body else None
        if value is not None and not isinstance(value, dict):
            raise ProtocolError("a body is a map")
        return Frame(kind, request, value, bytes(data[at:]), sender, receiver)


# --- the ring document (section 3) ------------------------------------------------------------------------------


@dataclass
class Member:
    nonce: bytes
    host: str
    weight: int
    state: int


class Ring:
    """A ring document whose signature has been verified."""

    def __init__(self, document, authority: Ed25519PublicKey):
        if document[:8] != b"ePOSTrng":
            raise ProtocolError("not a ring document")
        authority.verify(bytes(document[8:72]), bytes(document[72:]))
        fields = decode_value(document[72:])
        self.ring, self.epoch = fields[0], fields[1]
        self.k, self.lease = fields[2][0], fields[2][2]
        self.members = [Member(m[0], m[1], m[3], m[4]) for m in fields[3]]

    def scope(self):
        return {0: self.ring, 1: self.epoch}

    def nearest(self, key):
        """(member, index) of the active node ids, nearest to the key first; the smaller id of two equally near."""
        place = placement(key)
        seats = []
        for member in self.members:
            if member.state == ACTIVE:
                for index in range(member.weight):
                    seat = int.from_bytes(node_id(self.ring, member.nonce, index), "big")
                    seats.append((distance(seat, place), seat, index, member))
        seats.sort(key=lambda seat: seat[:2])
        return [(member, index) for _, _, index, member in seats]
