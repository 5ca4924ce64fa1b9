//! Pannier: a vector database that lives beside an application.

pub mod log;
pub mod manifest;
pub mod storage;
pub mod types;
