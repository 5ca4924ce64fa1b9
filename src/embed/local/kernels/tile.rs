//! The innermost loop: one tile of a matrix product, with what follows it fused in.

use super::math::{gelu, near_gelu, silu};
use super::simd::Simd;

/// What is done to a sum of products before it is stored.
#[derive(Clone, Copy)]
pub(super) enum Finish {
    /// Nothing: more products follow.
    Pause,
    /// Adds the bias.
    Bias,
    /// Adds the bias, then applies GELU.
    BiasGelu,
    /// The same, as near as is needed of what is rounded to 8 bits next.
    BiasNearGelu,
    /// Adds the bias and the tile of another matrix.
    BiasResidual { residual: *const f32, stride: usize },
    /// Adds the bias, applies SiLU, multiplies by the tile of another matrix.
    BiasSiluTimes { factor: *const f32, stride: usize },
}

/// What weights are stored as.
pub(super) trait Weight: Copy {
    /// One register of weights.
    ///
    /// # Safety
    /// `Simd`'s promise.
    unsafe fn load<S: Simd>(from: *const Self) -> S::F32;
}

impl Weight for f32 {
    #[inline(always)]
    unsafe fn load<S: Simd>(from: *const f32) -> S::F32 {
        // SAFETY: the caller's promise.
        unsafe { S::load(from) }
    }
}

/// The bits of a half-precision number.
impl Weight for u16 {
    #[inline(always)]
    unsafe fn load<S: Simd>(from: *const u16) -> S::F32 {
        // SAFETY: the caller's promise.
        unsafe { S::load_f16(from) }
    }
}

/// How the rows of a tile's left matrix lie in memory.
pub(super) trait Order: Copy {
    /// Elements from the first row to row `row`.
    fn row(row: usize, stride: usize) -> usize;
    /// Elements from one product to the next.
    fn product(stride: usize) -> usize;
}

/// Row after row, `stride` elements apart.
#[derive(Clone, Copy)]
pub(super) struct ByRow;

/// Product after product, `stride` elements apart, each with the numbers of all rows side by side. So the tile reads
/// one stream, and needs no arithmetic for addresses.
#[derive(Clone, Copy)]
pub(super) struct ByProduct;

impl Order for ByRow {
    #[inline(always)]
    fn row(row: usize, stride: usize) -> usize {
        row.wrapping_mul(stride)
    }
    #[inline(always)]
    fn product(_: usize) -> usize {
        1
    }
}

impl Order for ByProduct {
    #[inline(always)]
    fn row(row: usize, _: usize) -> usize {
        row
    }
    #[inline(always)]
    fn product(stride: usize) -> usize {
        stride
    }
}

/// What a tile multiplies: weights of one kind by a matrix of one order.
pub(super) trait Kind {
    type Weight: Weight;
    type Order: Order;
}

impl<W: Weight, O: Order> Kind for (W, O) {
    type Weight = W;
    type Order = O;
}

/// One output tile: `rows` by two registers, the sum over `depth` products.
pub(super) struct Tile<W> {
    /// First element of the left matrix.
    pub a: *const f32,
    /// As the left matrix' [`Order`] says.
    pub a_stride: usize,
    /// Panel of `TILE_COLUMNS` columns and `depth` rows.
    pub b: *const W,
    /// Elements from one row of the panel to the next.
    pub b_stride: usize,
    /// Products to sum.
    pub depth: usize,
    /// How far ahead of its use the panel is fetched, in bytes.
    pub ahead: usize,
    /// First element of the output tile.
    pub out: *mut f32,
    /// Elements from one row of the output to the next.
    pub out_stride: usize,
    /// Whether `out` holds a sum that is continued.
    pub resume: bool,
    /// Biases of the tile's columns.
    pub bias: *const f32,
    /// What follows the sum.
    pub finish: Finish,
}

/// How far ahead of their use weights are fetched that come from memory: what a core computes while a line is on its
/// way, some 300 ns.
const FROM_MEMORY_BYTES: usize = 8192;
/// The same for what the second-level cache holds.
pub(super) const FROM_CACHE_BYTES: usize = 1024;
const CACHE_LINE: usize = 64;

/// How far ahead of their use weights are fetched, in bytes, for a tile that begins at `row`: the first rows bring them
/// to the second-level cache, where the others find them.
pub(super) fn ahead(row: usize) -> usize {
    if row == 0 { FROM_MEMORY_BYTES } else { FROM_CACHE_BYTES }
}

/// Computes a tile of `M` rows.
///
/// The sums live in registers only if every loop over them is unrolled, so nothing large stands inside those loops:
/// what follows the sums is done by a second pass over the stored tile, which the first-level cache still holds.
///
/// # Safety
/// `Simd`'s promise, and every pointer of the tile covers `M` rows (`a`: `depth` columns, the others `TILE_COLUMNS`).
#[inline(always)]
#[expect(clippy::needless_range_loop, reason = "indices that are constants after unrolling keep `sums` in registers")]
pub(super) unsafe fn compute<S: Simd, W: Weight, O: Order, const M: usize>(tile: &Tile<W>) {
    // SAFETY: the caller's promise.
    unsafe {
        let mut sums = [[S::zero(); 2]; M];
        if tile.resume {
            for i in 0..M {
                let out = tile.out.wrapping_add(i.wrapping_mul(tile.out_stride));
                sums[i][0] = S::load(out);
                sums[i][1] = S::load(out.wrapping_add(S::LANES));
            }
        }
        // The output is written long after its lines have come.
        for i in 0..M {
            let out = tile.out.wrapping_add(i.wrapping_mul(tile.out_stride));
            S::prefetch(out);
            S::prefetch(out.wrapping_add(S::LANES));
        }
        let mut a = tile.a;
        let mut b = tile.b;
        for _ in 0..tile.depth {
            let left = W::load::<S>(b);
            let right = W::load::<S>(b.wrapping_add(S::LANES));
            let ahead = b.cast::<u8>().wrapping_add(tile.ahead);
            S::prefetch(ahead);
            if size_of::<W>() * S::TILE_COLUMNS > CACHE_LINE {
                S::prefetch(ahead.wrapping_add(CACHE_LINE));
            }
            for i in 0..M {
                let x = S::splat(*a.wrapping_add(O::row(i, tile.a_stride)));
                sums[i][0] = S::mul_add(x, left, sums[i][0]);
                sums[i][1] = S::mul_add(x, right, sums[i][1]);
            }
            a = a.wrapping_add(O::product(tile.a_stride));
            b = b.wrapping_add(tile.b_stride);
        }
        for i in 0..M {
            let out = tile.out.wrapping_add(i.wrapping_mul(tile.out_stride));
            S::store(out, sums[i][0]);
            S::store(out.wrapping_add(S::LANES), sums[i][1]);
        }
    }
}

/// Does what follows the sums to a stored tile of `rows` rows.
///
/// # Safety
/// As for [`compute`].
#[inline(always)]
pub(super) unsafe fn finish<S: Simd, W>(rows: usize, tile: &Tile<W>) {
    if matches!(tile.finish, Finish::Pause) {
        return;
    }
    // SAFETY: the caller's promise.
    unsafe {
        for column in [0, S::LANES] {
            let bias = S::load(tile.bias.wrapping_add(column));
            let mut out = tile.out.wrapping_add(column);
            for i in 0..rows {
                let x = S::add(S::load(out), bias);
                S::store(out, tile.finish.apply::<S>(x, i, column));
                out = out.wrapping_add(tile.out_stride);
            }
        }
    }
}

impl Finish {
    /// The same where the next product rounds its rows to 8 bits.
    pub(super) fn for_int8(self) -> Self {
        match self {
            Finish::BiasGelu => Finish::BiasNearGelu,
            _ => self,
        }
    }

    /// The same for a tile whose first element stands in this row and column.
    pub(super) fn at(self, row: usize, column: usize) -> Self {
        match self {
            Finish::Pause | Finish::Bias | Finish::BiasGelu | Finish::BiasNearGelu => self,
            Finish::BiasResidual { residual, stride } => {
                Finish::BiasResidual { residual: residual.wrapping_add(row * stride + column), stride }
            }
            Finish::BiasSiluTimes { factor, stride } => {
                Finish::BiasSiluTimes { factor: factor.wrapping_add(row * stride + column), stride }
            }
        }
    }

    /// What becomes of `x`, a register of sums with their bias, which stands in this row and column of the tile.
    ///
    /// # Safety
    /// `Simd`'s promise; another operand covers the register.
    #[inline(always)]
    pub(super) unsafe fn apply<S: Simd>(self, x: S::F32, row: usize, column: usize) -> S::F32 {
        // SAFETY: the caller's promise.
        unsafe {
            match self {
                Finish::Pause | Finish::Bias => x,
                Finish::BiasGelu => gelu::<S>(x),
                Finish::BiasNearGelu => near_gelu::<S>(x),
                Finish::BiasResidual { residual, stride } => {
                    S::add(x, S::load(residual.wrapping_add(row.wrapping_mul(stride) + column)))
                }
                Finish::BiasSiluTimes { factor, stride } => {
                    S::mul(silu::<S>(x), S::load(factor.wrapping_add(row.wrapping_mul(stride) + column)))
                }
            }
        }
    }
}

/// Cuts `count` rows into as few tiles of at most `most` rows as there can be, all of about one height. Yields where
/// each begins and how many rows it has.
#[inline(always)]
pub(super) fn heights(count: usize, most: usize) -> impl Iterator<Item = (usize, usize)> {
    let tiles = count.div_ceil(most);
    (0..tiles).map(move |tile| {
        let from = tile * count / tiles;
        (from, (tile + 1) * count / tiles - from)
    })
}

/// Calls `$function::<kind, rows>($tile)` for one of the listed numbers of rows.
macro_rules! by_rows {
    ($rows:expr, $tile:expr, $function:ident, $kind:ty, [$($count:literal),*]) => {
        match $rows {
            $($count => $function::<$kind, $count>($tile),)*
            rows => unreachable!("a tile has no {rows} rows"),
        }
    };
}
pub(super) use by_rows;
