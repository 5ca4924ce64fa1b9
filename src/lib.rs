//! Pannier: a vector database that lives beside an application.

pub mod storage;
pub mod types;
