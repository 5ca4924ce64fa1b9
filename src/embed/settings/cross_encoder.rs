//! What the directory of a cross-encoder says: a BERT for sequence classification with one label.

use std::path::Path;

use serde_json::Value;

use super::architecture::Architecture;
use super::{Activation, Family, MIN_TOKENS, Settings, read_json};
use crate::embed::local::most_tokens;
use crate::embed::store::Place;
use crate::embed::{Dimensions, EmbedError, Pooling};

/// Where older and newer sentence-transformers write the function over the label's number.
const ACTIVATIONS: [[&str; 2]; 2] =
    [["sentence_transformers", "activation_fn"], ["sbert_ce_default_activation_function", ""]];

/// What a cross-encoder's directory says.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct CrossEncoderSettings {
    /// Of its encoder, whose first token is taken.
    pub encoder: Settings,
    /// What its score passes at last.
    pub activation: Activation,
}

/// Whether the config.json at `path` is that of a cross-encoder.
pub(crate) fn says_cross_encoder(path: &Path) -> bool {
    read_json(path).is_ok_and(|config| is_cross_encoder(&config))
}

fn is_cross_encoder(config: &Value) -> bool {
    let names = config["architectures"].as_array();
    names
        .is_some_and(|names| names.iter().any(|n| n.as_str().is_some_and(|n| n.ends_with("ForSequenceClassification"))))
}

impl CrossEncoderSettings {
    /// Reads config.json of an installed model.
    ///
    /// # Errors
    /// [`EmbedError::Malformed`], [`EmbedError::Unsupported`], [`EmbedError::Storage`].
    pub(crate) fn read(place: &Place) -> Result<Self, EmbedError> {
        let path = place.dir.join("config.json");
        let json: Value = read_json(&path)?;
        let unsupported = |feature: &str| EmbedError::Unsupported {
            path: path.clone(),
            feature: feature.to_owned(),
            supported: "cross-encoders of the BERT family with one label, such as cross-encoder/ms-marco-MiniLM-L6-v2",
        };
        if !is_cross_encoder(&json) {
            return Err(unsupported("another kind of model than sequence classification"));
        }
        let architecture = Architecture::from_json(&json, &path)?;
        if architecture.family != Family::Bert || architecture.type_vocab_size < 2 {
            return Err(unsupported("pairs of texts by another encoder than BERT"));
        }
        if labels(&json) != 1 {
            return Err(unsupported("several labels"));
        }
        let max_tokens = most_tokens(&architecture);
        if max_tokens < 2 * MIN_TOKENS {
            let reason = format!("it reads at most {max_tokens} tokens, too few for two texts");
            return Err(EmbedError::malformed(&path, reason));
        }
        let encoder = Settings {
            architecture,
            transformer: String::new(),
            pooling: Pooling::FirstToken,
            steps: Vec::new(),
            normalise: false,
            dimensions: Dimensions::Whole,
            layer_norm_before_cut: false,
            max_tokens,
            lower_case: false,
            query_prefix: String::new(),
            document_prefix: String::new(),
        };
        let activation = activation(&json).ok_or_else(|| unsupported("an unknown function over its score"))?;
        Ok(Self { encoder, activation })
    }
}

/// Transformers has two labels where a file names none.
fn labels(json: &Value) -> usize {
    let named = json["id2label"].as_object().map(serde_json::Map::len);
    named.or_else(|| json["num_labels"].as_u64().map(|count| count as usize)).unwrap_or(2)
}

/// The function over the score of a single label: a sigmoid where the file says nothing, as in sentence-transformers.
fn activation(json: &Value) -> Option<Activation> {
    let named = ACTIVATIONS.iter().find_map(|[outer, inner]| match inner.is_empty() {
        true => json[*outer].as_str(),
        false => json[*outer][*inner].as_str(),
    });
    match named.map(|name| name.rsplit('.').next().unwrap_or(name)) {
        None | Some("Sigmoid") => Some(Activation::Sigmoid),
        Some("Identity") => Some(Activation::Identity),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn labels_and_activations_are_those_of_the_file() {
        assert_eq!(labels(&json!({"id2label": {"0": "LABEL_0"}})), 1);
        assert_eq!((labels(&json!({"num_labels": 1})), labels(&json!({}))), (1, 2));
        assert_eq!(activation(&json!({})), Some(Activation::Sigmoid));
        let new = json!({"sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity"}});
        assert_eq!(activation(&new), Some(Activation::Identity));
        let old = json!({"sbert_ce_default_activation_function": "torch.nn.modules.activation.Sigmoid"});
        assert_eq!(activation(&old), Some(Activation::Sigmoid));
        assert_eq!(activation(&json!({"sbert_ce_default_activation_function": "a.Softmax"})), None);
    }
}
