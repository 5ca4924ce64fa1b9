//! A matrix of activations: rows of f32, laid out so that tiles of it do not fight over cache sets.

/// Elements that separate two rows beside their width: one cache line. Widths are multiples of large powers of two, and
/// without it the rows of a tile would fall into the same few sets of the first-level cache.
const PADDING: usize = 16;
/// Where rows and panels begin, in elements: at a cache line.
const ALIGNMENT_BYTES: usize = 64;

/// f32 numbers that begin at a cache line.
#[derive(Debug, Default)]
pub(crate) struct Aligned {
    /// Longer than `len` by what aligning takes.
    storage: Vec<f32>,
    start: usize,
    len: usize,
}

impl Aligned {
    /// `len` zeros.
    pub(crate) fn zeroed(len: usize) -> Self {
        let storage = vec![0.0; len + ALIGNMENT_BYTES / size_of::<f32>()];
        let start = storage.as_ptr().align_offset(ALIGNMENT_BYTES);
        // `align_offset` may decline to answer; alignment is for speed alone.
        let start = if start < ALIGNMENT_BYTES / size_of::<f32>() { start } else { 0 };
        Self { storage, start, len }
    }

    /// Makes it at least `len` long; what it holds is then unspecified. Memory is only ever added.
    pub(crate) fn grow(&mut self, len: usize) {
        if self.len < len {
            *self = Self::zeroed(len);
        }
    }

    pub(crate) fn as_slice(&self) -> &[f32] {
        &self.storage[self.start..self.start + self.len]
    }

    pub(crate) fn as_mut_slice(&mut self) -> &mut [f32] {
        &mut self.storage[self.start..self.start + self.len]
    }
}

/// A matrix of f32, shape `[count, width]`, whose rows are `stride` elements apart.
#[derive(Debug)]
pub(crate) struct Rows {
    data: Aligned,
    count: usize,
    width: usize,
}

impl Rows {
    /// No rows yet, of `width` numbers each.
    pub(crate) fn new(width: usize) -> Self {
        Self { data: Aligned::default(), count: 0, width }
    }

    /// Sets the number of rows. What they hold is unspecified; memory is only ever added.
    pub(crate) fn set_count(&mut self, count: usize) {
        self.data.grow(count * self.stride());
        self.count = count;
    }

    /// Rows in use.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// Numbers in a row.
    pub(crate) fn width(&self) -> usize {
        self.width
    }

    /// Elements from the start of one row to the start of the next.
    pub(crate) fn stride(&self) -> usize {
        self.width + PADDING
    }

    /// Row `index`, shape `[width]`.
    pub(crate) fn row(&self, index: usize) -> &[f32] {
        let start = index * self.stride();
        &self.data.as_slice()[start..start + self.width]
    }

    /// Row `index`, shape `[width]`.
    pub(crate) fn row_mut(&mut self, index: usize) -> &mut [f32] {
        let start = index * self.stride();
        let width = self.width;
        &mut self.data.as_mut_slice()[start..start + width]
    }

    /// First element of the first row; `count * stride` elements follow.
    pub(super) fn as_ptr(&self) -> *const f32 {
        self.data.as_slice().as_ptr()
    }

    /// First element of the first row; `count * stride` elements follow.
    pub(super) fn as_mut_ptr(&mut self) -> *mut f32 {
        self.data.as_mut_slice().as_mut_ptr()
    }
}
