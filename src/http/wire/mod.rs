//! The JSON that clients send and read, and its conversion to and from the domain's types.

pub(crate) mod answer;
pub(crate) mod backend;
pub(crate) mod choice;
pub(crate) mod cursor;
mod decimal;
pub(crate) mod definition;
pub(crate) mod document;
pub(crate) mod embeddings;
pub(crate) mod explain;
pub(crate) mod filter;
pub(crate) mod json;
pub(crate) mod list;
pub(crate) mod ollama;
pub(crate) mod patch;
pub(crate) mod ranking;
pub(crate) mod replication;
mod room;
pub(crate) mod scan;
pub(crate) mod search;
pub(crate) mod tei;
pub(crate) mod template;
pub(crate) mod time;
mod unique;
pub(crate) mod value;
pub(crate) mod vector;
