//! Pannier: a vector database that lives beside an application.

pub mod embed;
pub mod storage;
pub mod types;
