//! Whole models: small seeded ones made here, and the genuine one where it is installed.

mod directories;
mod genuine;
pub(super) mod small;
mod text_model;
