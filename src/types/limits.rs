//! Every limit that a request can run into, as a named constant.

/// Longest request body, in bytes.
pub const MAX_BODY_BYTES: usize = 32 << 20;
/// Longest body that says how something is to be: several times what the longest definition takes.
pub const MAX_SETTINGS_BYTES: usize = 2 << 20;
/// Most documents in one request; streams have no such limit.
pub const MAX_DOCUMENTS_PER_REQUEST: usize = 1_000;
/// Most bytes of memory that the documents which one request patches take together, as they stand: about what a record
/// of the log has.
pub const MAX_PATCHED_BYTES: usize = 64 << 20;
/// Largest vector dimension.
pub const MAX_DIM: usize = 4_096;
/// Most hits a search may ask for.
pub const MAX_TOP_K: usize = 1_000;
/// Deepest that pages of a search reach: offset and `top_k` together.
pub const MAX_SEARCH_WINDOW: usize = 10_000;
/// As [`MAX_SEARCH_WINDOW`], where hits are compared with each other for diversity.
pub const MAX_DIVERSE_WINDOW: usize = 1_000;
/// Most hits of one group.
pub const MAX_GROUP_SIZE: usize = 100;
/// Most fields whose values one search counts.
pub const MAX_FACETS: usize = 16;
/// Most different values that one search counts: one for each of its fields and of the documents that it can reach.
pub const MAX_COUNTED_VALUES: usize = MAX_FACETS * MAX_SEARCH_WINDOW;
/// Longest string that is a value of a group or a facet, in bytes.
pub const MAX_SHARED_STRING_BYTES: usize = 512;
/// Most documents that one search is to be like, and unlike.
pub const MAX_LIKE: usize = 100;
/// Most candidates that one search has reranked.
pub const MAX_RERANKED: usize = 200;
/// Most searches in one request.
pub const MAX_SEARCHES_PER_REQUEST: usize = 100;
/// Largest `ef_search` and `ef_construction`.
pub const MAX_EF: usize = 4_096;
/// Deepest nesting of metadata and of JSON bodies.
pub const MAX_JSON_DEPTH: usize = 32;
/// Most nodes in a filter.
pub const MAX_FILTER_NODES: usize = 256;
/// Longest document id, in bytes of UTF-8.
pub const MAX_DOCUMENT_ID_BYTES: usize = 512;
/// Longest text of one document or query, in bytes of UTF-8.
pub const MAX_TEXT_BYTES: usize = 1 << 20;
/// Largest chunk that a collection may ask for, in tokens; its model may read fewer.
pub const MAX_CHUNK_TOKENS: usize = 8_192;
/// Most chunks of one document.
pub const MAX_CHUNKS: usize = 4_096;
/// Most numbers in the vectors of one request's documents: 48 MiB, which leaves room in a record of the log.
pub const MAX_REQUEST_NUMBERS: usize = 12 << 20;
/// Longest metadata of one document, in bytes as stored.
pub const MAX_METADATA_BYTES: usize = 1 << 20;
/// Most fields that a collection may declare.
pub const MAX_DECLARED_FIELDS: usize = 128;
/// Longest declared field, its path for a nested one, in bytes.
pub const MAX_FIELD_BYTES: usize = 256;
/// Longest name of a metadata field, and longest path to one in a search, in bytes.
pub const MAX_FIELD_NAME_BYTES: usize = 1_024;
/// Longest template of a collection, in bytes.
pub const MAX_TEMPLATE_BYTES: usize = 16 << 10;
/// Longest collection name, in bytes.
pub const MAX_NAME_BYTES: usize = 64;
/// Most documents on one page of a listing.
pub const MAX_PAGE: usize = 1_000;
/// Most bytes that the documents of one HTTP answer carry.
pub const MAX_ANSWER_BYTES: usize = 64 << 20;
/// Most texts in one embedding request (OpenAI's own limit).
pub const MAX_EMBEDDING_INPUTS: usize = 2_048;
/// Most bytes of memory that long bodies of HTTP requests, and what was read of them, take together.
pub const MAX_BODIES_BYTES: usize = 512 << 20;
/// Most connections served at once.
pub const MAX_CONNECTIONS: usize = 256;
/// Connections beyond them on which health checks are answered, and nothing else.
pub const KEPT_CONNECTIONS: usize = 8;
/// Fewest components of vectors that are searched by one bit each.
pub const MIN_BINARY_DIM: u32 = 768;
