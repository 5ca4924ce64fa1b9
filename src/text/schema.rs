//! The fields of a keyword index: an id, the change that wrote the document, and its words.

use tantivy::schema::{FAST, Field, IndexRecordOption, Schema, TextFieldIndexing, TextOptions};

/// The name under which the collection's analyzer is registered.
pub(super) const ANALYZER: &str = "words";
/// The id, as one token.
pub(super) const ID: &str = "id";
/// The change that wrote the document.
pub(super) const SEQ: &str = "seq";
/// The text's words. Neither the text nor the words' places are kept: the documents have the text.
pub(super) const WORDS: &str = "words";

/// The fields by number.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fields {
    pub(super) id: Field,
    pub(super) seq: Field,
    pub(super) words: Field,
}

pub(super) fn schema() -> (Schema, Fields) {
    let mut builder = Schema::builder();
    let raw = |options: TextFieldIndexing| options.set_tokenizer("raw").set_fieldnorms(false);
    let id = TextOptions::default()
        .set_indexing_options(raw(TextFieldIndexing::default()).set_index_option(IndexRecordOption::Basic))
        .set_fast("raw");
    let words = TextOptions::default().set_indexing_options(
        TextFieldIndexing::default().set_tokenizer(ANALYZER).set_index_option(IndexRecordOption::WithFreqs),
    );
    let fields = Fields {
        id: builder.add_text_field(ID, id),
        seq: builder.add_u64_field(SEQ, FAST),
        words: builder.add_text_field(WORDS, words),
    };
    (builder.build(), fields)
}
