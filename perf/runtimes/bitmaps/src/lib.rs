//! Nothing, in the place of `bitmaps`: glommio 0.9 names that crate among its dependencies and uses no part of it.
//!
//! It is the only one below what is compared whose licence is not permissive (MPL-2.0). That this builds shows that nothing
//! of it is needed.
