//! The greeting: the first stream of every connection, opened by the dialler, one hello each way.
//!
//! A dialler's handshake succeeds before the server has judged the dialler's certificate; only the hello that comes
//! back proves that both sides have accepted. Until then nothing else is sent or read.

use super::Admission;
use super::admission::{Admitted, Refusal};
use bytes::{Bytes, BytesMut};
use net::id::Id;
use net::wire::{Body, Ends, Frame, HEADER_BYTES, Hello, Message, WIRE_VERSION, decode, encode, frame_length};
use quinn::{Connection, RecvStream, SendStream};

/// Longest frame a greeting may be: a header and a few numbers.
const GREETING_BYTES_MAX: usize = 1024;

/// Greets a peer we have dialled.
pub(super) async fn dial(
    connection: &Connection,
    admission: &Admission,
    own: Id,
    peer: &Admitted,
) -> Result<(), Refusal> {
    let (mut send, mut receive) = connection.open_bi().await.map_err(|_| Refusal::BadGreeting)?;
    say_hello(&mut send, admission, own).await?;
    hear_hello(&mut receive, admission, peer).await
}

/// Greets a peer that has dialled us.
pub(super) async fn accept(
    connection: &Connection,
    admission: &Admission,
    own: Id,
    peer: &Admitted,
) -> Result<(), Refusal> {
    let (mut send, mut receive) = connection.accept_bi().await.map_err(|_| Refusal::BadGreeting)?;
    hear_hello(&mut receive, admission, peer).await?;
    say_hello(&mut send, admission, own).await
}

async fn say_hello(send: &mut SendStream, admission: &Admission, own: Id) -> Result<(), Refusal> {
    let frame = hello(admission, own);
    send.write_all_chunks(&mut [frame.head, frame.payload]).await.map_err(|_| Refusal::BadGreeting)?;
    send.finish().map_err(|_| Refusal::BadGreeting)
}

async fn hear_hello(receive: &mut RecvStream, admission: &Admission, peer: &Admitted) -> Result<(), Refusal> {
    let bad = |_| Refusal::BadGreeting;
    let mut frame = BytesMut::zeroed(HEADER_BYTES);
    receive.read_exact(&mut frame).await.map_err(|_| Refusal::BadGreeting)?;
    let header = frame.first_chunk().ok_or(Refusal::BadGreeting)?;
    let length = frame_length(header).map_err(bad)?;
    if length > GREETING_BYTES_MAX {
        return Err(Refusal::BadGreeting);
    }
    frame.resize(length, 0);
    receive.read_exact(&mut frame[HEADER_BYTES..]).await.map_err(|_| Refusal::BadGreeting)?;
    judge(&frame.freeze(), admission, peer)
}

/// What a node says first, on the only bidirectional stream.
#[must_use]
pub fn hello(admission: &Admission, own: Id) -> Frame {
    let directory = admission.directory();
    let ring = directory.document();
    let hello = Hello { ring: ring.ring, epoch: ring.epoch, node: own, version: WIRE_VERSION };
    encode(&Message { request: 0, body: Body::Hello(hello) }, Ends::default())
}

/// Whether this is the hello of the peer that its certificate names.
///
/// # Errors
/// [`Refusal`], for which the connection is to be closed.
pub fn judge(frame: &Bytes, admission: &Admission, peer: &Admitted) -> Result<(), Refusal> {
    let (_, message) = decode(frame).map_err(|_| Refusal::BadGreeting)?;
    let Body::Hello(hello) = message.body else { return Err(Refusal::BadGreeting) };
    if hello.version < WIRE_VERSION {
        return Err(Refusal::BadGreeting);
    }
    if hello.ring != admission.directory().document().ring {
        return Err(Refusal::WrongRing);
    }
    if hello.node != peer.host.first() {
        return Err(Refusal::WrongNodeId);
    }
    Ok(())
}
