//! A stored vector, in the precision in which it is stored.

use std::borrow::Cow;

use crate::types::half;

/// A vector as it is stored.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum VectorRef<'a> {
    /// IEEE 754 binary32, shape `[dim]`.
    Float32(&'a [f32]),
    /// The bits of IEEE 754 binary16 numbers, shape `[dim]`.
    Float16(&'a [u16]),
}

impl<'a> VectorRef<'a> {
    /// Numbers in the vector.
    pub fn dim(self) -> usize {
        match self {
            Self::Float32(numbers) => numbers.len(),
            Self::Float16(bits) => bits.len(),
        }
    }

    /// Its numbers in f32; `memory` is for those that have to be widened, and its content does not matter.
    #[inline]
    pub fn read<'b>(self, memory: &'b mut Vec<f32>) -> &'b [f32]
    where
        'a: 'b,
    {
        match self {
            Self::Float32(numbers) => numbers,
            Self::Float16(bits) => {
                memory.clear();
                memory.extend(bits.iter().map(|&bits| half::widen(bits)));
                memory
            }
        }
    }

    /// Its numbers in f32, widened where they have to be.
    pub fn in_full(self) -> Cow<'a, [f32]> {
        match self {
            Self::Float32(numbers) => Cow::Borrowed(numbers),
            Self::Float16(_) => Cow::Owned(self.to_vec()),
        }
    }

    /// Vectors of `dim` numbers each that stand one after the other in this one.
    pub fn each(self, dim: usize) -> impl Iterator<Item = Self> {
        (0..self.dim() / dim).map(move |at| match self {
            Self::Float32(numbers) => Self::Float32(&numbers[at * dim..(at + 1) * dim]),
            Self::Float16(bits) => Self::Float16(&bits[at * dim..(at + 1) * dim]),
        })
    }

    /// Its numbers in f32.
    pub fn to_vec(self) -> Vec<f32> {
        match self {
            Self::Float32(numbers) => numbers.to_vec(),
            Self::Float16(bits) => bits.iter().map(|&bits| half::widen(bits)).collect(),
        }
    }

    /// Asks the processor to fetch it; see [`super::prefetch`].
    #[inline]
    pub fn prefetch(self) {
        match self {
            Self::Float32(numbers) => super::prefetch(numbers),
            Self::Float16(bits) => super::prefetch(bits),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_that_were_stored() {
        let numbers = [1.0f32, -0.5, 0.0, 65_504.0];
        let bits = numbers.map(half::narrow);
        let mut memory = vec![9.0; 7];
        for vector in [VectorRef::Float32(&numbers), VectorRef::Float16(&bits)] {
            assert_eq!((vector.read(&mut memory), vector.dim()), (numbers.as_slice(), 4));
            assert_eq!(vector.to_vec(), numbers);
            assert_eq!(*vector.in_full(), numbers);
            assert_eq!(vector.each(2).map(VectorRef::to_vec).collect::<Vec<_>>(), [[1.0, -0.5], [0.0, 65_504.0]]);
            vector.prefetch();
        }
    }
}
