//! Patches on the wire.

use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

use super::document::check_count;
use super::json::Object;
use super::list::AtMost;
use super::value::WireMetadata;
use super::vector::{VectorSchema, WireVector};
use crate::collection::Updated;
use crate::http::error::ApiError;
use crate::types::limits::MAX_DOCUMENTS_PER_REQUEST;
use crate::types::{DocumentId, DocumentPatch, Edit, Seq};

/// What changes of a document. What is left out stays; name one of `metadata`, `text` and `vector` at least.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"metadata": {"price": 12, "draft": null}, "if_seq": 7}))]
pub(crate) struct PatchBody {
    /// A JSON merge patch (RFC 7396): null takes a field away, objects are merged, arrays are replaced.
    #[serde(default)]
    #[schema(value_type = Object)]
    metadata: WireMetadata,
    /// The new text, embedded where no own vector stands; null takes it away.
    #[serde(default, deserialize_with = "edit")]
    #[schema(value_type = Option<String>)]
    text: Edit<String>,
    /// The document's own vector, which stays until it is named; null has the model make it of the text again.
    #[serde(default, deserialize_with = "edit")]
    #[schema(value_type = Option<VectorSchema>)]
    vector: Edit<WireVector>,
    /// The `seq` that the document must have, as it was read; else nothing is written: 409 `seq_conflict`.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = u64, required = false)]
    if_seq: Option<u64>,
    /// Whether the answer waits until keyword search sees the change, which it does by itself within a second.
    #[schema(default = false)]
    refresh: Option<bool>,
}

/// Documents to change; all of them or none.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"documents": [{"id": "a", "metadata": {"price": 12}}, {"id": "b", "text": "A new text."}]}))]
pub(crate) struct PatchesBody {
    /// 1 to 1,000, each id once.
    #[schema(value_type = Vec<DocumentPatchBody>, min_items = 1, max_items = 1000)]
    documents: AtMost<Object<DocumentPatchBody>, MAX_DOCUMENTS_PER_REQUEST>,
    /// Whether the answer waits until keyword search sees the changes, which it does by itself within a second.
    #[schema(default = false)]
    refresh: Option<bool>,
}

/// What changes of one of several documents; the fields are those of the patch of one.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = DocumentPatch)]
pub(crate) struct DocumentPatchBody {
    /// Which document.
    #[schema(min_length = 1, max_length = 512, example = "a")]
    id: String,
    /// A JSON merge patch (RFC 7396).
    #[serde(default)]
    #[schema(value_type = Object)]
    metadata: WireMetadata,
    /// The new text; null takes it away.
    #[serde(default, deserialize_with = "edit")]
    #[schema(value_type = Option<String>)]
    text: Edit<String>,
    /// Its own vector; null has the model make it of the text again.
    #[serde(default, deserialize_with = "edit")]
    #[schema(value_type = Option<VectorSchema>)]
    vector: Edit<WireVector>,
    /// The `seq` that it must have.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = u64, required = false)]
    if_seq: Option<u64>,
}

/// A field that was sent: null means something there.
fn edit<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Edit<T>, D::Error> {
    Ok(Option::deserialize(deserializer)?.map_or(Edit::Remove, Edit::Set))
}

/// A field that was sent, and may not be null: a condition that is lost on the way is none.
pub(super) fn given<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

impl PatchBody {
    /// Whether to wait for keyword search.
    pub(crate) fn wants_refresh(&self) -> bool {
        self.refresh == Some(true)
    }

    /// The patch of a document.
    pub(crate) fn into_patch(self, id: DocumentId) -> DocumentPatch {
        let Self { metadata, text, vector, if_seq, .. } = self;
        patch(id, metadata, text, vector, if_seq)
    }
}

impl PatchesBody {
    /// Whether to wait for keyword search.
    pub(crate) fn wants_refresh(&self) -> bool {
        self.refresh == Some(true)
    }

    /// # Errors
    /// An empty or overlong list, an id that is not allowed.
    pub(crate) fn into_patches(self) -> Result<Vec<DocumentPatch>, ApiError> {
        check_count("documents", self.documents.count())?;
        let into_patch = |Object(one): Object<DocumentPatchBody>| {
            let DocumentPatchBody { id, metadata, text, vector, if_seq } = one;
            Ok(patch(DocumentId::new(&id)?, metadata, text, vector, if_seq))
        };
        self.documents.into_items().into_iter().map(into_patch).collect()
    }
}

fn patch(
    id: DocumentId,
    WireMetadata(metadata): WireMetadata,
    text: Edit<String>,
    vector: Edit<WireVector>,
    if_seq: Option<u64>,
) -> DocumentPatch {
    let vector = match vector {
        Edit::Keep => Edit::Keep,
        Edit::Remove => Edit::Remove,
        Edit::Set(WireVector(vector)) => Edit::Set(vector),
    };
    DocumentPatch { id, metadata, text, vector, if_seq: if_seq.map(Seq) }
}

/// What a patch did.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({"updated": 1, "seq": 8, "embedded": 0, "cached": 1, "truncated": []}))]
pub(crate) struct UpdatedView {
    updated: usize,
    /// The change that holds them: the documents' new `seq`.
    seq: u64,
    /// Texts that the model embedded.
    embedded: usize,
    /// Texts whose vector was known already, those that stayed among them.
    cached: usize,
    /// Ids of documents whose text was embedded and is longer than the model reads.
    truncated: Vec<String>,
    /// Where `refresh` asked for it: whether keyword search sees the documents now. They are written either way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) refreshed: Option<bool>,
}

impl From<Updated> for UpdatedView {
    fn from(updated: Updated) -> Self {
        let Updated { updated, seq: Seq(seq), embedded, cached, truncated } = updated;
        let truncated = truncated.iter().map(DocumentId::to_string).collect();
        Self { updated, seq, embedded, cached, truncated, refreshed: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::error::Code;
    use crate::http::wire::json;
    use crate::types::Value;

    fn one(text: &str) -> Result<DocumentPatch, ApiError> {
        json::parse::<PatchBody>(text.as_bytes()).map(|body| body.into_patch(DocumentId::new("a").unwrap()))
    }

    #[test]
    fn what_is_left_out_stays_and_null_takes_away() {
        let nothing = DocumentPatch::new(DocumentId::new("a").unwrap());
        assert_eq!(one("{}").unwrap(), nothing);
        assert_eq!(
            one(r#"{"text":null,"vector":null}"#).unwrap(),
            DocumentPatch { text: Edit::Remove, vector: Edit::Remove, ..nothing.clone() }
        );
        let all = one(r#"{"metadata":{"a":null,"b":{"c":1}},"text":"t","vector":[1,0.5],"if_seq":0}"#).unwrap();
        assert_eq!((all.text, all.vector), (Edit::Set("t".into()), Edit::Set(vec![1.0, 0.5])));
        assert_eq!((all.metadata["a"].clone(), all.if_seq), (Value::Null, Some(Seq(0))));
    }

    #[test]
    fn what_is_no_patch_is_refused() {
        let cases = [
            (r#"{"metadata":null}"#, Code::InvalidValue),
            (r#"{"metadata":[1]}"#, Code::InvalidValue),
            (r#"{"text":5}"#, Code::InvalidValue),
            (r#"{"if_seq":null}"#, Code::InvalidValue),
            (r#"{"if_seq":"7"}"#, Code::InvalidValue),
            (r#"{"if_seq":-1}"#, Code::InvalidValue),
            (r#"{"vector":[1e39]}"#, Code::InvalidVector),
            (r#"{"chunks":[]}"#, Code::UnknownField),
            (r#"{"seq":1}"#, Code::UnknownField),
            (r#"{"id":"a"}"#, Code::UnknownField),
        ];
        for (text, wanted) in cases {
            assert_eq!(one(text).unwrap_err().code, wanted, "{text}");
        }
        let detail = one(r#"{"seq":1}"#).unwrap_err().detail;
        assert!(detail.contains("`if_seq`"), "{detail}");
    }

    #[test]
    fn several_are_read_whole_or_refused() {
        let read = |text: &str| json::parse::<PatchesBody>(text.as_bytes()).and_then(PatchesBody::into_patches);
        let patches = read(r#"{"documents":[{"id":"a","text":"t"},{"id":"b","if_seq":7}],"refresh":true}"#).unwrap();
        assert_eq!((patches.len(), patches[1].if_seq), (2, Some(Seq(7))));
        let many = format!("{{\"documents\":[{}{{\"id\":\"z\"}}]}}", "{\"id\":\"a\"},".repeat(1_000));
        let cases = [
            (r#"{"documents":[]}"#, Code::InvalidValue),
            (r#"{"documents":[{"text":"t"}]}"#, Code::MissingField),
            (r#"{"documents":[{"id":""}]}"#, Code::InvalidName),
            (r#"{"documents":[{"id":"a","refresh":true}]}"#, Code::UnknownField),
            (many.as_str(), Code::TooManyDocuments),
        ];
        for (text, wanted) in cases {
            assert_eq!(read(text).unwrap_err().code, wanted, "{}", &text[..text.len().min(80)]);
        }
    }
}
