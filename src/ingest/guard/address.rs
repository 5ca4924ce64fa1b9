//! Addresses: of electronic mail, and of the internet protocol.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::Range;

/// Addresses such as `bob.smith+x@mail.example.com`: a domain with a dot and a last part of letters.
pub(super) fn emails(text: &str) -> Vec<Range<usize>> {
    let mut found: Vec<Range<usize>> = Vec::new();
    for (at, _) in text.match_indices('@') {
        let local = |c: &char| c.is_alphanumeric() || "._%+-'".contains(*c);
        let before: usize = text[..at].chars().rev().take_while(local).map(char::len_utf8).sum();
        let domain = |c: &char| c.is_alphanumeric() || ".-".contains(*c);
        let after: usize = text[at + 1..].chars().take_while(domain).map(char::len_utf8).sum();
        let host = text[at + 1..at + 1 + after].trim_end_matches(['.', '-']);
        let start = at - text[at - before..at].trim_start_matches(['.', '\'']).len();
        let is_host = host.rsplit_once('.').is_some_and(|(name, last)| {
            !name.is_empty() && last.chars().count() >= 2 && last.chars().all(char::is_alphabetic)
        });
        let overlaps = found.last().is_some_and(|last| start < last.end);
        if start < at && is_host && !overlaps {
            found.push(start..at + 1 + host.len());
        }
    }
    found
}

/// Addresses of version 4 in four decimal parts, and of version 6 in any of its forms.
pub(super) fn ip_addresses(text: &str) -> Vec<Range<usize>> {
    let belongs = |c: char| c.is_ascii_hexdigit() || c == '.' || c == ':';
    let mut found = Vec::new();
    let mut start = None;
    for (at, c) in text.char_indices().chain([(text.len(), ' ')]) {
        match (start, belongs(c)) {
            (None, true) => start = Some(at),
            (Some(from), false) => {
                found.extend(ip_address(text, from, at));
                start = None;
            }
            _ => {}
        }
    }
    found
}

/// The address that a run of its characters holds, but for punctuation at its end.
fn ip_address(text: &str, from: usize, to: usize) -> Option<Range<usize>> {
    let is_word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    if is_word(text[..from].chars().next_back()) || is_word(text[to..].chars().next()) {
        return None;
    }
    let run = text[from..to].trim_end_matches('.');
    let run = if run.ends_with(':') && !run.ends_with("::") { &run[..run.len() - 1] } else { run };
    let is_version_4 = run.parse::<Ipv4Addr>().is_ok();
    let is_version_6 = run.len() > 4 && run.parse::<Ipv6Addr>().is_ok();
    // A port after an address of version 4.
    let before_port = run.rsplit_once(':').filter(|(host, _)| host.parse::<Ipv4Addr>().is_ok()).map(|(host, _)| host);
    match (is_version_4 || is_version_6, before_port) {
        (true, _) => Some(from..from + run.len()),
        (false, Some(host)) => Some(from..from + host.len()),
        (false, None) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(find: fn(&str) -> Vec<Range<usize>>, text: &str) -> Vec<&str> {
        find(text).into_iter().map(|range| &text[range]).collect()
    }

    #[test]
    fn addresses_of_mail_are_found() {
        let cases: [(&str, &[&str]); 6] = [
            ("write bob.smith+x@mail.example.com.", &["bob.smith+x@mail.example.com"]),
            ("<a@b.co>,'c@d.org'", &["a@b.co", "c@d.org'".trim_end_matches('\'')]),
            ("иван@пример.рф", &["иван@пример.рф"]),
            ("@handle, a@b, a@b.1, @b.com, 5 @ 3.50", &[]),
            ("a@b.com@c.com", &["a@b.com"]),
            ("", &[]),
        ];
        for (text, wanted) in cases {
            assert_eq!(texts(emails, text), wanted, "{text}");
        }
    }

    #[test]
    fn addresses_of_hosts_are_found() {
        let cases: [(&str, &[&str]); 5] = [
            ("from 192.168.0.1:8080 to 10.0.0.7.", &["192.168.0.1", "10.0.0.7"]),
            ("2001:db8::ff00:42:8329 and fe80::1", &["2001:db8::ff00:42:8329", "fe80::1"]),
            ("12:30:45, 1.2.3, 256.1.1.1, std::fmt, a::b", &[]),
            ("v1.2.3.4x x10.0.0.1", &[]),
            ("at 10.0.0.1: down", &["10.0.0.1"]),
        ];
        for (text, wanted) in cases {
            assert_eq!(texts(ip_addresses, text), wanted, "{text}");
        }
    }
}
