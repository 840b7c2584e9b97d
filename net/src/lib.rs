//! The overlay, as machines without I/O.
#![forbid(unsafe_code)]
pub mod id;
pub mod machine;
pub mod overlay;
pub mod past;
pub mod ring;
pub mod wire;
