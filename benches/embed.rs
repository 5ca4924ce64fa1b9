//! The default model on one query, on a batch of short texts and on a long text. Says so where it is not installed.

use std::hint::black_box;
use std::num::NonZeroUsize;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use pannier::embed::{DEFAULT_MODEL, InputKind, Models, default_models_dir};

const QUERY: &str = "what similarity laws must be obeyed when constructing aeroelastic models";
const BATCH: usize = 32;

fn embed(criterion: &mut Criterion) {
    let models = Models::new(default_models_dir(), Some(NonZeroUsize::MIN));
    let model = match models.load(DEFAULT_MODEL) {
        Ok(model) => model,
        Err(error) => {
            println!("embed: skipped, {error}");
            return;
        }
    };
    let short: Vec<String> = (0..BATCH).map(|number| format!("{QUERY} of heated aircraft number {number}")).collect();
    let short: Vec<&str> = short.iter().map(String::as_str).collect();
    let long = format!("{QUERY} ").repeat(16);
    let cases: [(&str, Vec<&str>, InputKind); 3] = [
        ("query", vec![QUERY], InputKind::Query),
        ("short texts", short, InputKind::Document),
        ("long text", vec![long.trim()], InputKind::Document),
    ];
    let mut group = criterion.benchmark_group("embed, one thread");
    group.sample_size(10).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(3));
    for (name, texts, input) in cases {
        let tokens: usize = match model.embed(&texts, input) {
            Ok(embeddings) => embeddings.token_counts.iter().sum(),
            Err(error) => panic!("{name}: {error}"),
        };
        group.throughput(Throughput::Elements(tokens as u64));
        group.bench_function(format!("{name}, {tokens} tokens"), |bencher| {
            bencher.iter(|| black_box(model.embed(black_box(&texts), input).expect("it has just embedded them")));
        });
    }
    group.finish();
}

criterion_group!(benches, embed);
criterion_main!(benches);
