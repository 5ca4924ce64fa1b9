//! What transformer encoders are made of, on our kernels: each block holds its packed weights and hides their
//! precision.

mod attention;
mod embeddings;
mod feed_forward;
mod linear;
mod norm;
mod position;
mod workspace;

pub(super) use attention::Attention;
pub(super) use embeddings::{Added, Embeddings};
pub(super) use feed_forward::FeedForward;
pub(super) use linear::{Linear, Part};
pub(super) use norm::Norm;
pub(super) use position::{Position, Rotary};
pub(super) use workspace::{Widths, Workspace, Workspaces};

pub(super) use super::kernels::RelativeBias;

use super::kernels::Kernels;
use super::weights::Weights;
use crate::embed::Precision;

/// What blocks are loaded from and for.
#[derive(Clone, Copy)]
pub(super) struct Loader<'a> {
    pub weights: &'a Weights,
    pub kernels: Kernels,
    pub precision: Precision,
}
