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
                ip_addresses_of(text, from, at, &mut found);
                start = None;
            }
            _ => {}
        }
    }
    found
}

/// The addresses that a run of their characters holds, but for punctuation at its end. A colon is a part of an address
/// or stands between it and a word or a port.
fn ip_addresses_of(text: &str, from: usize, to: usize, found: &mut Vec<Range<usize>>) {
    let is_word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    let begins_in_word = is_word(text[..from].chars().next_back());
    let ends_in_word = is_word(text[to..].chars().next());
    let run = text[from..to].trim_end_matches('.');
    // Two colons are always a part: what stands beside them is no word of its own.
    let after_colon = run.split_once(':').map(|(_, rest)| rest).filter(|rest| !rest.starts_with(':'));
    for rest in [(!begins_in_word).then_some(run), after_colon].into_iter().flatten() {
        let before_colon = rest.rsplit_once(':').map(|(host, _)| host).filter(|host| !host.ends_with(':'));
        let hosts = [(!ends_in_word).then_some(rest), before_colon];
        let is_version_6 = |host: &&str| host.len() > 4 && host.parse::<Ipv6Addr>().is_ok();
        if let Some(host) = hosts.into_iter().flatten().find(is_version_6) {
            let start = from + run.len() - rest.len();
            found.push(start..start + host.len());
            return;
        }
    }
    let mut start = from;
    for part in run.split(':') {
        let end = start + part.len();
        let is_whole = (start > from || !begins_in_word) && (end < from + run.len() || !ends_in_word);
        let host = part.trim_end_matches('.');
        if is_whole && host.parse::<Ipv4Addr>().is_ok() {
            found.push(start..start + host.len());
        }
        start = end + 1;
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
        let cases: [(&str, &[&str]); 14] = [
            ("from 192.168.0.1:8080 to 10.0.0.7.", &["192.168.0.1", "10.0.0.7"]),
            ("2001:db8::ff00:42:8329 and fe80::1", &["2001:db8::ff00:42:8329", "fe80::1"]),
            ("12:30:45, 1.2.3, 256.1.1.1, std::fmt, a::b", &[]),
            ("v1.2.3.4x x10.0.0.1", &[]),
            ("at 10.0.0.1: down", &["10.0.0.1"]),
            ("ip:10.0.0.1 client:192.168.0.7:80, Face:10.0.0.2", &["10.0.0.1", "192.168.0.7", "10.0.0.2"]),
            ("10.0.0.1:80:x 10.0.0.2:down 10.0.0.3:10.0.0.4.", &["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"]),
            ("ip:2001:db8::1 source:2001:db8::2:eth0", &["2001:db8::1", "2001:db8::2"]),
            ("fe80::1: up, at fe80::2:", &["fe80::1", "fe80::2"]),
            ("2001:db8:0:0:0:0:0:1:443", &["2001:db8:0:0:0:0:0:1"]),
            ("client:::ffff:10.0.0.1 ::ffff:10.0.0.2", &["10.0.0.1", "::ffff:10.0.0.2"]),
            ("client:v1.2.3.4 x:1.2.3.4x x1.2.3.4:5", &[]),
            ("at:12:30:45, mod::abc::def, abc::def::fn, C::a", &[]),
            ("00:1a:2b:3c:4d:5e, 16:27:ac:a5:76:28:2d:36:63:1b:56:4d:eb:df:a6:48", &[]),
        ];
        for (text, wanted) in cases {
            assert_eq!(texts(ip_addresses, text), wanted, "{text}");
        }
    }
}
