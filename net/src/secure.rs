//! Who somebody is: certified ids and the certificates behind them.
//!
//! A node id follows from the nonce the organisation's CA drew for the host, so nobody chooses one; the ring
//! document says which nonces belong to the ring. This module reads certificates; issuing them is the business of
//! the organisation's CA, which is elsewhere.

pub mod certificate;
