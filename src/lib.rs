//! Pannier: a vector database that lives beside an application.

pub mod distance;
pub mod index;
pub mod segment;
pub mod storage;
pub mod types;
