//! The UDP socket and the QUIC endpoint on it.
//!
//! Connection ids and the key of stateless resets follow from the node's secret, not from the process: a node that
//! was killed and started again can tell its old peers at once that their connections are gone. Otherwise each
//! would talk to nobody until the idle time had passed.

use super::tls::{self, Credentials, TlsError};
use super::{Admission, Class};
use crate::node::limits::{
    CONNECTION_WINDOW_BYTES, DATAGRAM_BUFFER_BYTES, IDLE_TIME, KEEP_ALIVE_TIME, SOCKET_BUFFER_BYTES,
    STREAM_WINDOW_BYTES, STREAMS_MAX,
};
use quinn::crypto::{CryptoError, HmacKey};
use quinn::{ConnectionId, ConnectionIdGenerator, TransportConfig, VarInt};
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;
use zeroize::Zeroizing;

/// Why the endpoint could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// The address is taken, or not ours.
    #[error("cannot listen on UDP {address}: {source}; stop what uses it, or change node.listen")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// TLS could not be set up.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// Opens the endpoint; it accepts and dials. Must be called within a tokio runtime.
pub(super) fn open(
    listen: SocketAddr,
    admission: &Arc<Admission>,
    own: &Credentials,
    secret: &[u8; 32],
) -> Result<quinn::Endpoint, SocketError> {
    let server = server_config(admission, own)?;
    let mut config = quinn::EndpointConfig::new(Arc::new(ResetKey::derive(secret)));
    config.cid_generator(|| Box::new(RandomIds));
    let bind = |source| SocketError::Bind { address: listen, source };
    let socket = bound_socket(listen).map_err(bind)?;
    quinn::Endpoint::new(config, Some(server), socket, Arc::new(quinn::TokioRuntime)).map_err(bind)
}

/// What to accept with.
///
/// # Errors
/// [`TlsError`], when the credentials cannot be used.
pub fn server_config(admission: &Arc<Admission>, own: &Credentials) -> Result<quinn::ServerConfig, TlsError> {
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(tls::server_config(admission, own)?));
    config.transport_config(Arc::new(transport_config(None)));
    // A host's address is in the ring document; a connection that wanders to another is not that host's.
    config.migration(false);
    Ok(config)
}

/// What to dial with, for connections of this class.
///
/// # Errors
/// [`TlsError`], when the credentials cannot be used.
pub fn dial_config(
    admission: &Arc<Admission>,
    own: &Credentials,
    class: Class,
) -> Result<quinn::ClientConfig, TlsError> {
    let mut config = quinn::ClientConfig::new(Arc::new(tls::client_config(admission, own, tls::ALPN[class as usize])?));
    config.transport_config(Arc::new(transport_config(Some(KEEP_ALIVE_TIME))));
    Ok(config)
}

fn transport_config(keep_alive: Option<Duration>) -> TransportConfig {
    let mut config = TransportConfig::default();
    config
        .max_concurrent_uni_streams(VarInt::from_u32(STREAMS_MAX))
        // The greeting's.
        .max_concurrent_bidi_streams(VarInt::from_u32(1))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW_BYTES))
        .receive_window(VarInt::from_u32(CONNECTION_WINDOW_BYTES))
        .send_window(u64::from(CONNECTION_WINDOW_BYTES))
        .datagram_receive_buffer_size(Some(DATAGRAM_BUFFER_BYTES))
        .datagram_send_buffer_size(DATAGRAM_BUFFER_BYTES)
        .max_idle_timeout(Some(IDLE_TIME.try_into().expect("the idle time is a small constant")))
        .keep_alive_interval(keep_alive)
        // Peers are mostly near; the standard's 333 ms makes the loss of a first packet expensive.
        .initial_rtt(Duration::from_millis(100));
    config
}

/// The default buffers lose packets of bulk transfers. The kernel grants what its own limits allow, without error.
fn bound_socket(listen: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(listen), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES)?;
    socket.set_send_buffer_size(SOCKET_BUFFER_BYTES)?;
    socket.bind(&listen.into())?;
    Ok(socket.into())
}

/// Keyed BLAKE3 in the place of HMAC.
struct ResetKey(Zeroizing<[u8; 32]>);

impl ResetKey {
    fn derive(secret: &[u8; 32]) -> ResetKey {
        ResetKey(Zeroizing::new(blake3::derive_key("ePOST 2026 QUIC stateless reset", secret)))
    }
}

impl HmacKey for ResetKey {
    fn sign(&self, data: &[u8], signature_out: &mut [u8]) {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        hasher.update(data);
        hasher.finalize_xof().fill(signature_out);
    }

    fn signature_len(&self) -> usize {
        32
    }

    fn verify(&self, data: &[u8], signature: &[u8]) -> Result<(), CryptoError> {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        hasher.update(data);
        let expected = hasher.finalize();
        // blake3's comparison with a slice takes the same time wherever the first difference is.
        if expected == *signature { Ok(()) } else { Err(CryptoError) }
    }
}

/// Connection ids that any later process of this node takes for its own: it answers packets of connections it does
/// not know with a reset, as often as the endpoint's rate limit allows.
#[derive(Debug)]
struct RandomIds;

impl ConnectionIdGenerator for RandomIds {
    fn generate_cid(&mut self) -> ConnectionId {
        let bytes = getrandom::u64().expect("the system has a random generator").to_le_bytes();
        ConnectionId::new(&bytes)
    }

    fn cid_len(&self) -> usize {
        8
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}
