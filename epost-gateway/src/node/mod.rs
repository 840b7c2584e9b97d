//! One running node: the machine on its overlay thread, and the I/O around it.
pub mod clock;
pub mod enrolment;
pub mod limits;
pub mod status;
pub mod transport;
