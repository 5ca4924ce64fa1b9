//! Addresses: of electronic mail, and of the internet protocol.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::Range;

/// Characters of the part before the `@`, beside letters and digits. `/`, `=`, `?`, `|` and the like may be there, too,
/// but divide far more often than they belong to a name.
const LOCAL: &str = "._%+-'!#$&*^~";
/// Those of them with which no address begins.
const NO_START: [char; 9] = ['.', '\'', '!', '#', '$', '&', '*', '^', '~'];

/// Most characters of a domain.
const MAX_HOST: usize = 255;

/// Addresses such as `bob.smith+x@mail.example.com`: a domain with a dot and a last part of letters.
pub(super) fn emails(text: &str) -> Vec<Range<usize>> {
    let mut found: Vec<Range<usize>> = Vec::new();
    for (at, _) in text.match_indices('@') {
        let local = |c: &char| c.is_alphanumeric() || LOCAL.contains(*c);
        let before: usize = text[..at].chars().rev().take_while(local).map(char::len_utf8).sum();
        let domain = |c: &char| c.is_alphanumeric() || ".-".contains(*c);
        let after: usize = text[at + 1..].chars().take(MAX_HOST).take_while(domain).map(char::len_utf8).sum();
        let Some(host) = host_of(&text[at + 1..at + 1 + after]) else { continue };
        let start = at - text[at - before..at].trim_start_matches(NO_START).len();
        let start = start.max(found.last().map_or(0, |last| last.end));
        if start < at {
            found.push(start..at + 1 + host.len());
        }
    }
    found
}

/// The longest domain that a text of letters, digits, points and hyphens begins with. What follows a point or a hyphen
/// may be the text's own.
fn host_of(text: &str) -> Option<&str> {
    let cuts = text.rmatch_indices(['.', '-']).map(|(at, _)| &text[..at]);
    std::iter::once(text).chain(cuts).find(|host| is_host(host))
}

/// Whether the last part is of letters, or stands for letters (`xn--`), and another is before it.
fn is_host(host: &str) -> bool {
    let Some((name, last)) = host.rsplit_once('.') else { return false };
    let is_encoded = last.get(..4).is_some_and(|start| start.eq_ignore_ascii_case("xn--"));
    let is_last = match is_encoded {
        true => last.len() > 4 && last.is_ascii() && !last.ends_with('-'),
        false => last.chars().count() >= 2 && last.chars().all(char::is_alphabetic),
    };
    !name.is_empty() && is_last
}

/// Addresses of version 4 in four decimal parts, and of version 6 in any of its forms.
pub(super) fn ip_addresses(text: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut start = None;
    for (at, c) in text.char_indices().chain([(text.len(), ' ')]) {
        // A point is a part of an address between two of its own. Others end sentences, or stand for what is left out.
        let divides = || start.is_some() && text[at + 1..].starts_with(|next: char| next.is_ascii_digit());
        let belongs = c.is_ascii_hexdigit() || c == ':' || c == '.' && divides();
        match (start, belongs) {
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

/// The addresses that a run of their characters holds. A colon is a part of an address or stands between it and a word
/// or a port.
fn ip_addresses_of(text: &str, from: usize, to: usize, found: &mut Vec<Range<usize>>) {
    let is_word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    let before = &text[..from];
    let begins_in_word = is_word(before.strip_suffix('.').unwrap_or(before).chars().next_back());
    let ends_in_word = is_word(text[to..].chars().next());
    let run = &text[from..to];
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
        if is_whole && part.parse::<Ipv4Addr>().is_ok() {
            found.push(start..end);
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
        let cases: [(&str, &[&str]); 13] = [
            ("write bob.smith+x@mail.example.com.", &["bob.smith+x@mail.example.com"]),
            ("<a@b.co>,'c@d.org'", &["a@b.co", "c@d.org'".trim_end_matches('\'')]),
            ("иван@пример.рф", &["иван@пример.рф"]),
            ("@handle, a@b, a@b.1, @b.com, 5 @ 3.50", &[]),
            ("a@b.com@c.com", &["a@b.com"]),
            ("ann@example.com-2024-05-01 ask bob@a.example.org.2 copies", &["ann@example.com", "bob@a.example.org"]),
            ("ann@example.com-bob@example.org", &["ann@example.com", "-bob@example.org"]),
            ("ann@xn--e1afmkfd.xn--p1ai, ann@b.XN--P1AI-x.", &["ann@xn--e1afmkfd.xn--p1ai", "ann@b.XN--P1AI-x"]),
            ("ann@a-b.example.com-, ann@b.com-9", &["ann@a-b.example.com", "ann@b.com"]),
            ("a&b@x.com **c!d@x.com** #e@x.com", &["a&b@x.com", "c!d@x.com", "e@x.com"]),
            ("?to=f@x.com|g@x.com", &["f@x.com", "g@x.com"]),
            ("*@b.com, a@xn--, x@1.2-3.4, a@b-c.d2", &[]),
            ("", &[]),
        ];
        for (text, wanted) in cases {
            assert_eq!(texts(emails, text), wanted, "{text}");
        }
    }

    #[test]
    fn addresses_of_hosts_are_found() {
        let cases: [(&str, &[&str]); 17] = [
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
            ("seen from 10.0.0.7.Then it, 10.0.0.8.Below, fe80::1.And", &["10.0.0.7", "10.0.0.8", "fe80::1"]),
            ("10.0.0.1..10.0.0.9, ...10.0.0.2... etc...10.0.0.3", &["10.0.0.1", "10.0.0.9", "10.0.0.2", "10.0.0.3"]),
            ("libx.so.1.2.3.4 1.2.3.4.5 1.2.3.4.5.", &[]),
            ("client:v1.2.3.4 x:1.2.3.4x x1.2.3.4:5", &[]),
            ("at:12:30:45, mod::abc::def, abc::def::fn, C::a", &[]),
            ("00:1a:2b:3c:4d:5e, 16:27:ac:a5:76:28:2d:36:63:1b:56:4d:eb:df:a6:48", &[]),
        ];
        for (text, wanted) in cases {
            assert_eq!(texts(ip_addresses, text), wanted, "{text}");
        }
    }
}
