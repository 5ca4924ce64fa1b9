//! Vectors row after row: from files of raw little-endian f32, or made from a seed.

use std::fs::File;
use std::io::{BufReader, Read, Write};
use std::path::{Path, PathBuf};

use clap::Args;

use super::super::CliError;
use super::random::Random;
use crate::storage::{Publishing, StorageError};
use crate::types::check_vector;

/// How far the L2 norm of a row may be from 1.
const NORM_TOLERANCE: f64 = 1e-3;
/// Centres of the made vectors, and how far rows lie from theirs.
const CLUSTERS: usize = 256;
const SPREAD: f64 = 0.6;

/// Files of vectors to measure with.
#[derive(Args, Clone, Debug)]
pub(super) struct VectorFiles {
    /// Base vectors, little-endian f32, row after row, of length 1
    #[arg(long, value_name = "FILE")]
    pub vectors: PathBuf,
    /// Query vectors in the same form
    #[arg(long, value_name = "FILE")]
    queries: PathBuf,
    /// Numbers in a vector
    #[arg(long, value_name = "N", default_value_t = 384)]
    pub dim: u32,
}

impl VectorFiles {
    /// The base vectors, from the first on.
    ///
    /// # Errors
    /// As [`RowReader::open`].
    pub fn base(&self) -> Result<RowReader, CliError> {
        RowReader::open(&self.vectors, self.dim as usize)
    }

    /// All query vectors.
    ///
    /// # Errors
    /// As [`RowReader::open`] and [`RowReader::read`].
    pub fn queries(&self) -> Result<Vec<Vec<f32>>, CliError> {
        let mut reader = RowReader::open(&self.queries, self.dim as usize)?;
        reader.read(reader.rows())
    }
}

/// A file of rows: f32, shape `[rows, dim]`, L2 norm 1, nothing else.
#[derive(Debug)]
pub(super) struct RowReader {
    path: PathBuf,
    reader: BufReader<File>,
    dim: usize,
    rows: usize,
    next: usize,
}

impl RowReader {
    /// Opens a file and checks that its length is a whole number of rows.
    ///
    /// # Errors
    /// [`CliError::Io`], [`CliError::Refused`].
    pub fn open(path: &Path, dim: usize) -> Result<Self, CliError> {
        let fail = |e| CliError::io(format!("read {}", path.display()), e);
        let file = File::open(path).map_err(fail)?;
        let len = file.metadata().map_err(fail)?.len();
        let row_bytes = dim as u64 * 4;
        if dim == 0 || len == 0 || !len.is_multiple_of(row_bytes) {
            let detail = format!("{} holds {len} bytes, not rows of {dim} f32 numbers; check --dim", path.display());
            return Err(CliError::Refused(detail));
        }
        let rows = (len / row_bytes) as usize;
        Ok(Self { path: path.to_owned(), reader: BufReader::with_capacity(1 << 20, file), dim, rows, next: 0 })
    }

    /// Rows in the file.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The next rows, up to `count`; none at the end.
    ///
    /// # Errors
    /// [`CliError::Io`], [`CliError::Refused`] for a row whose norm is not 1.
    pub fn read(&mut self, count: usize) -> Result<Vec<Vec<f32>>, CliError> {
        let count = count.min(self.rows - self.next);
        let mut bytes = vec![0; self.dim * 4];
        let mut rows = Vec::with_capacity(count);
        for _ in 0..count {
            self.reader.read_exact(&mut bytes).map_err(|e| CliError::io(format!("read {}", self.path.display()), e))?;
            let row: Vec<f32> = bytes.as_chunks::<4>().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
            let norm = check_vector(&row, self.dim).map_err(|error| self.refuse(error))?;
            if (norm - 1.0).abs() > NORM_TOLERANCE {
                return Err(self.refuse(format!("its L2 norm is {norm:.4}, not 1")));
            }
            self.next += 1;
            rows.push(row);
        }
        Ok(rows)
    }

    fn refuse(&self, reason: impl std::fmt::Display) -> CliError {
        CliError::Refused(format!("{}, row {}: {reason}", self.path.display(), self.next))
    }
}

/// A file of rows being written; it appears under its name when it is whole.
#[derive(Debug)]
pub(super) struct RowWriter {
    path: PathBuf,
    file: Publishing,
}

impl RowWriter {
    /// Begins a file; its directory must exist.
    ///
    /// # Errors
    /// [`CliError::Storage`].
    pub fn create(path: &Path) -> Result<Self, CliError> {
        Ok(Self { path: path.to_owned(), file: Publishing::create(path)? })
    }

    /// Appends rows.
    ///
    /// # Errors
    /// [`CliError::Storage`].
    pub fn write(&mut self, rows: &[Vec<f32>]) -> Result<(), CliError> {
        for row in rows {
            let bytes: Vec<u8> = row.iter().flat_map(|x| x.to_le_bytes()).collect();
            self.file.write_all(&bytes).map_err(|e| CliError::io(format!("write {}", self.path.display()), e))?;
        }
        Ok(())
    }

    /// Makes the file durable and gives it its name.
    ///
    /// # Errors
    /// [`CliError::Storage`].
    pub fn finish(self) -> Result<(), StorageError> {
        self.file.commit()
    }
}

/// Vectors without a file: unit vectors around [`CLUSTERS`] random centres.
#[derive(Clone, Debug)]
pub(super) struct Clusters {
    centres: Vec<Vec<f64>>,
    random: Random,
}

impl Clusters {
    /// Draws the centres.
    pub fn new(dim: usize, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let scale = 1.0 / (dim as f64).sqrt();
        let mut centre = |_| (0..dim).map(|_| random.normal() * scale).collect();
        Self { centres: (0..CLUSTERS).map(&mut centre).collect(), random }
    }

    fn next(&mut self) -> Vec<f32> {
        let centre = &self.centres[self.random.below(CLUSTERS)];
        let scale = SPREAD / (centre.len() as f64).sqrt();
        let row: Vec<f64> = centre.iter().map(|x| x + self.random.normal() * scale).collect();
        let norm = row.iter().map(|x| x * x).sum::<f64>().sqrt();
        row.into_iter().map(|x| (x / norm) as f32).collect()
    }
}

/// Where vectors come from.
#[derive(Debug)]
pub(super) enum Source {
    /// A file.
    File(RowReader),
    /// A seed.
    Synthetic(Clusters),
}

impl Source {
    /// What a report says of them.
    pub fn describe(&self) -> String {
        match self {
            Source::File(reader) => format!("{} ({} rows)", reader.path.display(), reader.rows),
            Source::Synthetic(_) => format!("synthetic: unit vectors around {CLUSTERS} random centres, seeded"),
        }
    }

    /// The next `count` rows, or an error where there are no more so many.
    ///
    /// # Errors
    /// [`CliError::Refused`], [`CliError::Io`].
    pub fn take(&mut self, count: usize) -> Result<Vec<Vec<f32>>, CliError> {
        match self {
            Source::Synthetic(clusters) => Ok((0..count).map(|_| clusters.next()).collect()),
            Source::File(reader) => {
                let rows = reader.read(count)?;
                match rows.len() == count {
                    true => Ok(rows),
                    false => Err(CliError::Refused(format!(
                        "{} holds {} rows, more are wanted; ask for fewer with --n",
                        reader.path.display(),
                        reader.rows
                    ))),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn norm(row: &[f32]) -> f64 {
        row.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt()
    }

    #[test]
    fn rows_go_out_and_come_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rows.f32");
        let rows = Source::Synthetic(Clusters::new(8, 1)).take(10).unwrap();
        let mut writer = RowWriter::create(&path).unwrap();
        writer.write(&rows).unwrap();
        writer.finish().unwrap();
        assert_eq!(fs::read(&path).unwrap()[..4], rows[0][0].to_le_bytes());
        let mut reader = RowReader::open(&path, 8).unwrap();
        assert_eq!(reader.rows(), 10);
        let mut back = reader.read(7).unwrap();
        back.extend(reader.read(7).unwrap());
        assert_eq!(back, rows);
        assert_eq!(reader.read(7).unwrap(), Vec::<Vec<f32>>::new());
        let mut source = Source::File(RowReader::open(&path, 8).unwrap());
        assert_eq!(source.take(10).unwrap(), rows);
        assert!(source.take(1).is_err());
    }

    #[test]
    fn what_is_no_row_of_unit_length_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rows.f32");
        let floats = |numbers: &[f32]| numbers.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<_>>();
        fs::write(&path, floats(&[1.0, 0.0, 0.0])).unwrap();
        assert!(RowReader::open(&path, 2).is_err());
        assert!(RowReader::open(&path, 0).is_err());
        fs::write(&path, floats(&[1.0, 0.0, 0.6, 0.7])).unwrap();
        let error = RowReader::open(&path, 2).unwrap().read(2).unwrap_err().to_string();
        assert!(error.contains("row 1") && error.contains("0.92"), "{error}");
        fs::write(&path, floats(&[f32::NAN, 0.0])).unwrap();
        assert!(RowReader::open(&path, 2).unwrap().read(1).is_err());
    }

    #[test]
    fn made_vectors_are_unit_vectors_and_repeat() {
        let rows = Source::Synthetic(Clusters::new(48, 3)).take(100).unwrap();
        assert!(rows.iter().all(|row| (norm(row) - 1.0).abs() < 1e-6));
        assert_eq!(rows, Source::Synthetic(Clusters::new(48, 3)).take(100).unwrap());
        assert_ne!(rows[0], rows[1]);
    }
}
