//! Connections to real Postgres servers, 16 and 18, and through a pooler.

mod backend;
mod connect;
mod copies;
mod migrations;
mod sources;
mod tls;
