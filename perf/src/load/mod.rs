//! Load: what is measured, and how.
//!
//! Every figure is the median of several rounds with its range, and a ratio compares only what was measured in the
//! same round, one after the other, so that a busy machine slows both sides alike.

pub(crate) mod engine;
pub(crate) mod growth;
pub(crate) mod mail;
pub(crate) mod net;

mod raw;

use ::engine::{Engine, Port, Request, Response};
use epost_gateway::cli::mail_client::ClientError;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Why a measurement came to nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    /// The file system, a socket or a process failed.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The engine could not be opened; its text says why and what to do.
    #[error("{0}")]
    Open(#[from] ::engine::OpenError),
    /// The engine refused an operation that should have worked.
    #[error("the engine refused: {0}")]
    Engine(#[from] ::engine::Error),
    /// The TLS library refused a certificate.
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// A mail server could not be asked, or did something else.
    #[error("{0}")]
    Mail(#[from] ClientError),
    /// Something else came than what must come here.
    #[error("expected {expected}, got {got:?}")]
    Unexpected {
        /// What was due.
        expected: &'static str,
        /// What came.
        got: String,
    },
    /// The ring did not start.
    #[error("the ring did not start: {0}")]
    Ring(String),
    /// A result could not be written as JSON.
    #[error("JSON: {0}")]
    Json(#[from] serde_json::Error),
}

/// Numbers without pattern from a seed, so that every run measures the same operations (splitmix64).
pub(crate) struct Dice(u64);

impl Dice {
    /// Dice that fall the same way for the same seed.
    pub(crate) fn new(seed: u64) -> Dice {
        Dice(seed)
    }

    /// The next number.
    pub(crate) fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Fills a buffer.
    pub(crate) fn fill(&mut self, buffer: &mut [u8]) {
        for chunk in buffer.chunks_mut(8) {
            let bytes = self.roll().to_le_bytes();
            chunk.copy_from_slice(&bytes[..chunk.len()]);
        }
    }
}

/// Keeps `depth` operations in flight until `total` are done; returns the time.
pub(crate) fn pump(
    engine: &Engine,
    depth: usize,
    total: usize,
    mut request: impl FnMut(usize) -> Request,
) -> Result<Duration, LoadError> {
    let this = std::thread::current();
    let mut port: Port = engine.port(depth, Arc::new(move || this.unpark()));
    if port.capacity() < depth {
        let got = format!("{} of {depth} places", port.capacity());
        return Err(LoadError::Unexpected { expected: "room in the port", got });
    }
    let start = Instant::now();
    let mut requests = (0..total).map(|turn| (turn as u64, request(turn)));
    let mut done = 0;
    while done < total {
        port.submit_many(&mut requests);
        let before = done;
        let mut next = port.poll_patiently();
        while let Some(completion) = next {
            if let Response::Got(None) = completion.result? {
                return Err(LoadError::Unexpected { expected: "the object", got: "nothing".to_owned() });
            }
            done += 1;
            next = port.poll();
        }
        if done == before {
            // The wake-up leaves a token, so that one that comes before the park is not lost.
            std::thread::park();
        }
    }
    Ok(start.elapsed())
}
