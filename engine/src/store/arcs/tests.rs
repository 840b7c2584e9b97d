//! Goal: the index agrees with a map.
