//! Rows laid out for the tiles of a product: what a tile reads stands in one piece, in the order in which it is read.

use super::simd::{MAX_LANES, Simd};
use super::tile;

/// Operands of [`run`].
pub(super) struct Args {
    /// First number of 32 bits of the matrix, shape `[count, width]`. Up to `LANES` numbers behind a row may be read.
    pub x: *const f32,
    pub stride: usize,
    pub count: usize,
    pub width: usize,
    /// [`len`] numbers: tile after tile, each of shape `[width, rows]`.
    pub out: *mut f32,
}

/// Room that a packed matrix needs: whole registers are written, and so some numbers behind its end.
pub(super) fn len(count: usize, width: usize) -> usize {
    count * width + MAX_LANES * MAX_LANES
}

/// Packs a matrix for tiles of at most `TILE_ROWS`, fewer than a register has numbers. What a tile writes behind its
/// end is where the next one begins.
///
/// # Safety
/// `Simd`'s promise; pointers cover what is said of them.
#[inline(always)]
pub(super) unsafe fn run<S: Simd>(args: &Args) {
    const { assert!(S::LANES <= MAX_LANES) };
    for (from, rows) in tile::heights(args.count, S::TILE_ROWS) {
        let x = args.x.wrapping_add(from * args.stride);
        let out = args.out.wrapping_add(from * args.width);
        for k in (0..args.width).step_by(S::LANES) {
            // SAFETY: the caller's promise.
            unsafe { S::transpose(x.wrapping_add(k), args.stride, rows, out.wrapping_add(k * rows), rows) };
        }
    }
}
