//! The octets of one connection, both ways.
//!
//! [`Wire`] gathers answers and gives them to the client at [`OUTPUT_BYTES_MAX`](limits::OUTPUT_BYTES_MAX) or when
//! nothing more is asked; a whole message goes out from where it lies, without a copy. Whoever writes waits for
//! the client, so a slow one slows its own session and fills no memory; one that takes nothing at all is cut off.

use super::limits;
use bytes::{Bytes, BytesMut};
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

/// What a connection runs over: TCP, TLS over it, or a pipe in a test.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// Why a connection is over before its time. None is the server's fault.
#[derive(Debug, thiserror::Error)]
pub(super) enum WireError {
    /// The client has closed it.
    #[error("closed by the client")]
    Closed,
    /// The client takes nothing of what it asked for.
    #[error("the client does not read")]
    TooSlow,
    /// The network says no.
    #[error("connection: {0}")]
    Io(#[from] io::Error),
}

/// One connection's octets.
pub(super) struct Wire {
    stream: Box<dyn Stream>,
    gathered: Vec<u8>,
}

impl Wire {
    pub(super) fn new(stream: Box<dyn Stream>) -> Self {
        Self { stream, gathered: Vec::new() }
    }

    /// The stream, once everything written has been flushed.
    pub(super) fn into_stream(self) -> Box<dyn Stream> {
        assert!(self.gathered.is_empty(), "flushed before it is handed over");
        self.stream
    }

    /// Where short answers are written to. Follow it with [`Self::relieve`] or [`Self::flush`].
    pub(super) fn out(&mut self) -> &mut Vec<u8> {
        &mut self.gathered
    }

    /// Lets the client take some if much has gathered.
    pub(super) async fn relieve(&mut self) -> Result<(), WireError> {
        if self.gathered.len() >= limits::OUTPUT_BYTES_MAX { self.write_gathered().await } else { Ok(()) }
    }

    /// Gives everything to the client.
    pub(super) async fn flush(&mut self) -> Result<(), WireError> {
        self.write_gathered().await?;
        match timeout(limits::WRITE_WAIT_MAX, self.stream.flush()).await {
            Ok(flushed) => Ok(flushed?),
            Err(_) => Err(WireError::TooSlow),
        }
    }

    /// Writes octets that lie elsewhere, without gathering them if they are many.
    pub(super) async fn write(&mut self, octets: &Bytes) -> Result<(), WireError> {
        if octets.len() <= limits::OUTPUT_BYTES_MAX / 4 {
            self.gathered.extend_from_slice(octets);
            return self.relieve().await;
        }
        self.write_gathered().await?;
        write_all(self.stream.as_mut(), octets).await
    }

    async fn write_gathered(&mut self) -> Result<(), WireError> {
        write_all(self.stream.as_mut(), &self.gathered).await?;
        self.gathered.clear();
        // What one long answer needed is not kept for the rest of a session that may idle for days.
        self.gathered.shrink_to(2 * limits::OUTPUT_BYTES_MAX);
        Ok(())
    }

    /// Receives some octets; dropping the future loses none.
    pub(super) async fn read(&mut self, buffer: &mut BytesMut) -> Result<(), WireError> {
        match self.stream.read_buf(buffer).await? {
            0 => Err(WireError::Closed),
            _ => Ok(()),
        }
    }

    /// Ends the connection in order, as far as the client lets us.
    pub(super) async fn close(&mut self) {
        // Nobody is left to tell of a failure.
        let _ = timeout(limits::SHUTDOWN_WAIT_MAX, self.stream.shutdown()).await;
    }
}

async fn write_all(stream: &mut dyn Stream, octets: &[u8]) -> Result<(), WireError> {
    for piece in octets.chunks(limits::WRITE_BYTES_MAX) {
        match timeout(limits::WRITE_WAIT_MAX, stream.write_all(piece)).await {
            Ok(written) => written?,
            Err(_) => return Err(WireError::TooSlow),
        }
    }
    Ok(())
}
