//! Pannier: a vector database that lives beside an application.

pub mod log;
pub mod storage;
pub mod types;
