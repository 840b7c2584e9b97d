//! Wire messages.
/// A message between nodes.
#[derive(Clone, Debug)]
pub enum Message {}
