//! Blocks and how a replica checks them.

/// Why a block is not legal for its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The name does not follow from the block.
    #[error("the block's name does not follow from its bytes")]
    WrongName,
    /// The signature does not verify under the key the name stands for.
    #[error("the block's signature does not verify")]
    BadSignature,
    /// The block is not of the form its kind demands, or over a bound.
    #[error("the block is malformed")]
    Malformed,
    /// A certificate that the organisation's CA did not issue for this address, or of a lower account generation.
    #[error("the certificate is not the organisation's")]
    NotCertified,
}
