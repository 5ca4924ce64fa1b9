//! A stream of any length in requests of a part of it each, and the report of them all.
//!
//! A server answers a request once all of it is written, and says nothing meanwhile: texts of a portion have to be
//! embedded in the time for which a client waits, also where the model is large, the cores are few and others ask.
//!
//! A server may answer before all of a request was sent. It then reads on within a bound, so that the answer arrives at
//! a client that sends all before it reads. What a request may still hold has to be less than that bound.

use std::io::{self, BufRead, Read};

use serde_json::{Value, json};

/// A request ends with the line that reaches so many bytes.
const PORTION_BYTES: usize = 256 << 10;
/// Most errors, and most ids of cut texts, that the report lists, as in the API's.
const MAX_LISTED: usize = 1_000;

/// Whole lines for one request.
pub(super) struct Portion<'a, R> {
    lines: &'a mut R,
    /// Bytes that were read.
    bytes: usize,
    /// Lines that were read to their end.
    pub(super) line_count: u64,
    is_over: bool,
}

impl<'a, R: BufRead> Portion<'a, R> {
    pub(super) fn of(lines: &'a mut R) -> Self {
        Self { lines, bytes: 0, line_count: 0, is_over: false }
    }
}

impl<R: BufRead> Read for Portion<'_, R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.is_over {
            return Ok(0);
        }
        let buffer = self.lines.fill_buf()?;
        let mut len = buffer.len().min(out.len());
        // The first byte with which the portion is full.
        let full = (PORTION_BYTES - 1).saturating_sub(self.bytes).min(len);
        if let Some(end) = buffer[full..len].iter().position(|&byte| byte == b'\n') {
            len = full + end + 1;
            self.is_over = true;
        }
        let read = &buffer[..len];
        out[..len].copy_from_slice(read);
        self.line_count += read.iter().filter(|&&byte| byte == b'\n').count() as u64;
        self.bytes += len;
        self.lines.consume(len);
        Ok(len)
    }
}

/// What the requests of a stream came to.
#[derive(Default)]
pub(super) struct Reports {
    sum: Option<Value>,
    lines: u64,
}

impl Reports {
    /// Documents written so far.
    pub(super) fn upserted(&self) -> u64 {
        self.sum.as_ref().and_then(|sum| sum["upserted"].as_u64()).unwrap_or(0)
    }

    /// Adds the report of the next portion, which had so many lines.
    pub(super) fn add(&mut self, mut report: Value, line_count: u64) {
        let before = self.lines;
        self.lines += line_count;
        let Some(sum) = &mut self.sum else {
            self.sum = Some(report);
            return;
        };
        for error in report["errors"].as_array_mut().into_iter().flatten() {
            error["line"] = json!(error["line"].as_u64().unwrap_or(0) + before);
        }
        for key in ["lines", "upserted", "failed", "embedded", "cached", "truncated_count"] {
            sum[key] = json!(sum[key].as_u64().unwrap_or(0) + report[key].as_u64().unwrap_or(0));
        }
        sum["done_through"] = json!(before + report["done_through"].as_u64().unwrap_or(0));
        if !report["seq"].is_null() {
            sum["seq"] = report["seq"].take();
        }
        for key in ["errors", "truncated"] {
            if let (Value::Array(all), Value::Array(more)) = (&mut sum[key], report[key].take()) {
                let room = MAX_LISTED.saturating_sub(all.len());
                all.extend(more.into_iter().take(room));
            }
        }
    }

    /// The report of the whole stream.
    pub(super) fn into_sum(self) -> Value {
        self.sum.unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn portions(text: &[u8], buffer_bytes: usize) -> Vec<(Vec<u8>, u64)> {
        let mut lines = io::BufReader::with_capacity(buffer_bytes, text);
        let mut portions = Vec::new();
        while !lines.fill_buf().unwrap().is_empty() {
            let mut portion = Portion::of(&mut lines);
            let mut sent = Vec::new();
            portion.read_to_end(&mut sent).unwrap();
            portions.push((sent, portion.line_count));
        }
        portions
    }

    #[test]
    fn a_portion_ends_with_the_line_that_fills_it() {
        let line = |len: usize| [vec![b'x'; len - 1], vec![b'\n']].concat();
        let exact = line(PORTION_BYTES);
        let text = [&exact[..], &line(PORTION_BYTES - 1), &line(10), &line(3 * PORTION_BYTES), b"the end"].concat();
        for buffer_bytes in [100, 4_097, 1 << 20] {
            let portions = portions(&text, buffer_bytes);
            let sizes: Vec<(usize, u64)> = portions.iter().map(|(sent, lines)| (sent.len(), *lines)).collect();
            assert_eq!(sizes, [(PORTION_BYTES, 1), (PORTION_BYTES + 9, 2), (3 * PORTION_BYTES, 1), (7, 0)]);
            assert!(portions.iter().flat_map(|(sent, _)| sent).eq(&text), "buffers of {buffer_bytes}");
        }
        assert_eq!(portions(b"a\nb", 8), [(b"a\nb".to_vec(), 1)]);
    }

    #[test]
    fn reports_of_portions_are_that_of_the_stream() {
        let report = |lines: u64, seq: Value, bad: u64| {
            json!({"lines": lines, "done_through": lines + 1, "upserted": lines - 1, "failed": 1, "seq": seq,
                "errors": [{"line": bad, "code": "c", "detail": "d"}], "embedded": 2, "cached": 3,
                "truncated_count": 1, "truncated": [format!("t{bad}")]})
        };
        let mut reports = Reports::default();
        for (lines, seq, bad) in [(10, json!(5), 4), (20, json!(7), 9), (3, json!(null), 1)] {
            reports.add(report(lines, seq, bad), lines + 1);
        }
        assert_eq!(reports.upserted(), 30);
        let errors: Vec<Value> = [4, 20, 33].map(|line| json!({"line": line, "code": "c", "detail": "d"})).to_vec();
        let wanted = json!({"lines": 33, "done_through": 36, "upserted": 30, "failed": 3, "seq": 7, "errors": errors,
            "embedded": 6, "cached": 9, "truncated_count": 3, "truncated": ["t4", "t9", "t1"]});
        assert_eq!(reports.into_sum(), wanted);
    }

    #[test]
    fn a_report_lists_no_more_than_the_api_s() {
        let errors = vec![json!({"line": 1, "code": "c", "detail": "d"}); 600];
        let mut reports = Reports::default();
        (0..3).for_each(|_| reports.add(json!({"failed": 600, "errors": errors}), 600));
        let sum = reports.into_sum();
        assert_eq!((sum["failed"].as_u64(), sum["errors"].as_array().unwrap().len()), (Some(1_800), MAX_LISTED));
    }
}
