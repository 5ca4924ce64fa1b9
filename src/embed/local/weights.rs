//! Weights in a safetensors file: found by name, checked for shape, decoded to f32 by candle.

use std::borrow::Cow;
use std::ops::Range;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use safetensors::tensor::{Metadata, TensorInfo};
use safetensors::{Dtype, SafeTensors};

use super::super::EmbedError;
use crate::storage::{Arena, Mapped};

/// What files put before the names of the encoder's tensors.
const PREFIXES: [&str; 7] = ["", "bert.", "roberta.", "mpnet.", "distilbert.", "nomic_bert.", "model."];

/// How pickles begin: archives of them, and bare ones of protocols 2 to 5.
const PICKLES: [&[u8]; 5] = [b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"];

/// A mapped safetensors file whose header has been checked.
pub(super) struct Weights {
    file: Mapped,
    metadata: Metadata,
    /// Where the tensors begin.
    data_from: usize,
    /// What stands before the names of this architecture's tensors.
    prefix: &'static str,
    /// Where what is packed from them goes.
    arena: Arena,
}

/// A tensor of f32 that stays in its file.
#[derive(Debug)]
pub(super) struct MappedTensor {
    file: Mapped,
    range: Range<usize>,
}

impl MappedTensor {
    /// Its numbers, row after row.
    pub(super) fn values(&self) -> &[f32] {
        self.file.f32s(self.range.clone()).expect("the range was checked when the file was mapped")
    }
}

impl Weights {
    /// Maps the file and checks its header. Names count from where the tensor `landmark` is found.
    ///
    /// # Errors
    /// [`EmbedError::Malformed`] where it is not a whole safetensors file with that tensor; [`EmbedError::Pickle`]
    /// where it is a pickle under another name; [`EmbedError::Storage`].
    pub(super) fn open(path: &Path, landmark: &str) -> Result<Self, EmbedError> {
        let file = Mapped::open(path)?;
        let (header, metadata) = SafeTensors::read_metadata(file.bytes()).map_err(|e| {
            // The length of a sound header may begin like one, so this is asked of unsound files only.
            match PICKLES.iter().any(|start| file.bytes().starts_with(start)) {
                true => EmbedError::Pickle { path: path.to_owned() },
                false => EmbedError::malformed(path, e),
            }
        })?;
        let found = PREFIXES.into_iter().find(|prefix| metadata.info(&format!("{prefix}{landmark}")).is_some());
        let prefix = found.ok_or_else(|| EmbedError::malformed(path, format!("it holds no {landmark}")))?;
        Ok(Self { file, metadata, data_from: size_of::<u64>() + header, prefix, arena: Arena::default() })
    }

    /// The file's path.
    pub(super) fn path(&self) -> &Path {
        self.file.path()
    }

    /// Memory for what is packed from them.
    pub(super) fn arena(&self) -> &Arena {
        &self.arena
    }

    /// The named tensor as f32, in place where it is stored so.
    ///
    /// # Errors
    /// [`EmbedError::Malformed`] where it is missing or of another shape or kind, or holds a number that is not finite:
    /// int8 would round it to some number.
    pub(super) fn tensor(&self, name: &str, shape: &[usize]) -> Result<Cow<'_, [f32]>, EmbedError> {
        let values = self.table(name, shape)?;
        // Without a branch for each number it costs a fraction of the packing.
        match values.iter().fold(true, |all, x| all & x.is_finite()) {
            true => Ok(values),
            false => Err(EmbedError::malformed(self.path(), format!("{name} holds a number that is not finite"))),
        }
    }

    /// As [`Weights::tensor`], for a table of which only the rows in use shall be read: its numbers are not looked at.
    ///
    /// # Errors
    /// [`EmbedError::Malformed`] where it is missing or of another shape or kind.
    pub(super) fn table(&self, name: &str, shape: &[usize]) -> Result<Cow<'_, [f32]>, EmbedError> {
        let info = self.info(name, shape)?;
        if info.dtype == Dtype::F32
            && let Some(values) = self.file.f32s(self.range(info))
        {
            return Ok(Cow::Borrowed(values));
        }
        let values = self.decode(info).and_then(|tensor| tensor.flatten_all()?.to_vec1());
        Ok(Cow::Owned(values.map_err(|e| EmbedError::malformed(self.path(), format!("{name}: {e}")))?))
    }

    /// What `pack` makes of some tensors. Then the pages that were read of the file are given back, so that memory does
    /// not hold all tensors while they are packed one after the other.
    pub(super) fn lend<T>(&self, pack: impl FnOnce() -> T) -> T {
        let packed = pack();
        self.file.release(0..self.file.bytes().len());
        packed
    }

    /// The named tensor read where it lies, for one that [`Weights::table`] borrows. The file is mapped anew: the pages
    /// from which the other tensors were read are given back.
    ///
    /// # Errors
    /// [`EmbedError::Malformed`] where the file has changed meanwhile, and as [`Weights::table`].
    pub(super) fn into_mapped(self, name: &str, shape: &[usize]) -> Result<MappedTensor, EmbedError> {
        let range = self.range(self.info(name, shape)?);
        let file = Mapped::open(self.path())?;
        if file.bytes().len() != self.file.bytes().len() || file.f32s(range.clone()).is_none() {
            return Err(EmbedError::malformed(self.path(), "it was replaced while it was read"));
        }
        file.advise_random();
        Ok(MappedTensor { file, range })
    }

    /// Every tensor of the encoder as candle's, in f32, by its name without prefix.
    ///
    /// # Errors
    /// [`EmbedError::Malformed`], also where one holds a number that is not finite: candle's ReLU makes 0 of it.
    pub(super) fn all(&self) -> Result<Vec<(String, Tensor)>, EmbedError> {
        let mut tensors = Vec::new();
        for (name, info) in self.metadata.tensors() {
            let Some(name) = name.strip_prefix(self.prefix) else { continue };
            if matches!(info.dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16) {
                let values = self.tensor(name, &info.shape)?.into_owned();
                let tensor = Tensor::from_vec(values, info.shape.as_slice(), &Device::Cpu);
                let tensor = tensor.map_err(|e| EmbedError::malformed(self.path(), format!("{name}: {e}")))?;
                tensors.push((name.to_owned(), tensor));
            }
        }
        Ok(tensors)
    }

    fn info(&self, name: &str, shape: &[usize]) -> Result<&TensorInfo, EmbedError> {
        let name = format!("{}{name}", self.prefix);
        let info = self.metadata.info(&name);
        let info = info.ok_or_else(|| EmbedError::malformed(self.path(), format!("{name} is missing")))?;
        if info.shape != shape {
            let reason = format!("{name} has the shape {:?}, the configuration asks for {shape:?}", info.shape);
            return Err(EmbedError::malformed(self.path(), reason));
        }
        if !matches!(info.dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16) {
            let reason = format!("{name} is stored as {:?}, weights must be F32, F16 or BF16", info.dtype);
            return Err(EmbedError::malformed(self.path(), reason));
        }
        Ok(info)
    }

    fn decode(&self, info: &TensorInfo) -> candle_core::Result<Tensor> {
        let bytes = &self.file.bytes()[self.range(info)];
        let tensor = Tensor::from_raw_buffer(bytes, info.dtype.try_into()?, &info.shape, &Device::Cpu)?;
        tensor.to_dtype(DType::F32)
    }

    /// Within the file: the header's check compared the end of the last tensor with the file's length.
    fn range(&self, info: &TensorInfo) -> Range<usize> {
        self.data_from + info.data_offsets.0..self.data_from + info.data_offsets.1
    }
}
