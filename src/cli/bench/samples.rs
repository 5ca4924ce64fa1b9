//! Short texts of real language, cut out of the Cranfield abstracts; equal seeds give equal texts.

use std::collections::HashSet;

use super::super::CliError;
use super::cranfield::{Cranfield, Entry};
use super::random::Random;

/// Shortest and longest text, in words.
const MIN_WORDS: usize = 8;
const MAX_WORDS: usize = 24;
/// Draws for each text wanted, before the corpus counts as used up.
const MAX_DRAWS: usize = 50;

/// Distinct texts, and those held back to search with.
#[derive(Clone, Debug)]
pub(super) struct Samples {
    /// `n` texts in random order, so that the first few are a fair sample of all.
    pub base: Vec<String>,
    /// Texts of none of `base`.
    pub held_out: Vec<String>,
    /// How many of `base` are whole sentences; the others are windows.
    pub sentences: usize,
}

/// Draws `held_out` windows, and then `n` other texts: the abstracts' sentences of 8 to 24 words, and for the rest
/// windows of 8 to 24 consecutive words, whose first word and length are drawn evenly. No text comes twice, though
/// windows overlap. The held-out texts depend on the seed alone, not on `n`.
///
/// # Errors
/// [`CliError::Refused`] when the corpus does not hold so many.
pub(super) fn draw(set: &Cranfield, n: usize, held_out: usize, seed: u64) -> Result<Samples, CliError> {
    let documents: Vec<Vec<&str>> = set.documents.iter().map(words).filter(|words| words.len() >= MIN_WORDS).collect();
    let mut seen = HashSet::new();
    let held_out = draw_windows(&documents, held_out, &mut Random::new(seed), &mut seen)?;
    let mut sentences: Vec<String> = set.documents.iter().flat_map(sentences_of).collect();
    sentences.retain(|sentence| seen.insert(sentence.clone()));
    let mut random = Random::new(seed.wrapping_add(1));
    random.shuffle(&mut sentences);
    sentences.truncate(n);
    let windows = draw_windows(&documents, n - sentences.len(), &mut random, &mut seen)?;
    let count = sentences.len();
    let mut base = sentences;
    base.extend(windows);
    random.shuffle(&mut base);
    Ok(Samples { base, held_out, sentences: count })
}

fn draw_windows(
    documents: &[Vec<&str>],
    wanted: usize,
    random: &mut Random,
    seen: &mut HashSet<String>,
) -> Result<Vec<String>, CliError> {
    // A start is drawn evenly from all places at which the shortest window fits, whichever document they are in.
    let starts: Vec<(usize, usize)> = documents
        .iter()
        .enumerate()
        .flat_map(|(document, words)| (0..=words.len() - MIN_WORDS).map(move |start| (document, start)))
        .collect();
    let mut windows = Vec::with_capacity(wanted);
    for _ in 0..wanted.saturating_mul(MAX_DRAWS) {
        if windows.len() == wanted || starts.is_empty() {
            break;
        }
        let (document, start) = starts[random.below(starts.len())];
        let len = MIN_WORDS + random.below(MAX_WORDS - MIN_WORDS + 1);
        let Some(window) = documents[document].get(start..start + len) else { continue };
        let text = window.join(" ");
        if seen.insert(text.clone()) {
            windows.push(text);
        }
    }
    match windows.len() == wanted {
        true => Ok(windows),
        false => Err(CliError::Refused(format!(
            "the data set holds {} distinct windows, {wanted} are wanted; ask for fewer with --n",
            windows.len()
        ))),
    }
}

fn words(document: &Entry) -> Vec<&str> {
    document.text.split(' ').filter(|word| !word.is_empty()).collect()
}

/// Sentences of a fitting length; in this corpus a full stop stands alone between spaces.
fn sentences_of(document: &Entry) -> Vec<String> {
    let sentences = document.text.split(" .").map(str::trim);
    let fitting = sentences.filter(|s| (MIN_WORDS..=MAX_WORDS).contains(&s.split(' ').count()));
    fitting.map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    fn set() -> Cranfield {
        let document = |id: usize| Entry {
            id: id.to_string(),
            text: (0..60)
                .map(|word| if word % 12 == 11 { ".".into() } else { format!("w{id}x{word}") })
                .collect::<Vec<_>>()
                .join(" "),
        };
        let short = Entry { id: "short".into(), text: "too short".into() };
        let documents = (0..20).map(document).chain([short]).collect();
        Cranfield { documents, queries: Vec::new(), relevant: HashMap::new() }
    }

    #[test]
    fn texts_are_distinct_of_the_right_length_and_from_the_corpus() {
        let set = set();
        let samples = draw(&set, 500, 50, 7).unwrap();
        assert_eq!((samples.base.len(), samples.held_out.len(), samples.sentences), (500, 50, 100));
        let all: HashSet<_> = samples.base.iter().chain(&samples.held_out).collect();
        assert_eq!(all.len(), 550);
        for text in all {
            assert!((MIN_WORDS..=MAX_WORDS).contains(&text.split(' ').count()), "{text}");
            assert!(set.documents.iter().any(|document| document.text.contains(text.as_str())), "{text}");
        }
    }

    #[test]
    fn a_seed_decides_all_and_held_out_texts_do_not_depend_on_n() {
        let set = set();
        let (a, b) = (draw(&set, 300, 50, 7).unwrap(), draw(&set, 200, 50, 7).unwrap());
        assert_eq!(a.held_out, b.held_out);
        assert_eq!(a.base, draw(&set, 300, 50, 7).unwrap().base);
        assert_ne!(a.base, draw(&set, 300, 50, 8).unwrap().base);
    }

    #[test]
    fn few_texts_are_a_fair_sample_of_the_sentences() {
        let samples = draw(&set(), 40, 5, 7).unwrap();
        assert_eq!((samples.base.len(), samples.sentences), (40, 40));
        let documents: HashSet<_> = samples.base.iter().map(|text| text.split('x').next()).collect();
        assert!(documents.len() > 10, "{documents:?}");
    }

    #[test]
    fn asking_for_more_than_there_is_ends() {
        let error = draw(&set(), 1_000_000, 5, 7).unwrap_err().to_string();
        assert!(error.contains("--n"), "{error}");
    }
}
