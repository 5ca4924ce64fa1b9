//! SQL text as its statements.

use super::lexer::{Kind, Token, tokens};

/// Words, names and strings that messages have of a statement.
const HEAD_WORDS: usize = 4;

/// One statement with what stands before it, up to its semicolon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Statement {
    /// As it stands in the file, comments and semicolon included.
    pub text: String,
    /// Where its first word stands, counted from 1.
    pub line: usize,
    /// Words, quoted names and signs, without space, comments and strings. Words with A to Z in lower case, as Postgres
    /// reads them; quoted names as they are, without their quotes.
    pub words: Vec<Word>,
}

/// What a statement is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Word {
    /// With A to Z in lower case.
    Plain(String),
    /// Without its quotes.
    Quoted(String),
    Sign(char),
    /// A string constant.
    Text,
}

/// A string, a quoted name or a comment that the file does not close.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unclosed {
    /// Where it begins, counted from 1.
    pub line: usize,
}

impl Statement {
    /// Whether there is nothing to run.
    pub fn is_empty(&self) -> bool {
        self.words.iter().all(|word| *word == Word::Sign(';'))
    }

    /// Its word at a position, if it is a plain one.
    pub fn word(&self, index: usize) -> Option<&str> {
        match self.words.get(index) {
            Some(Word::Plain(word)) => Some(word),
            _ => None,
        }
    }

    /// Whether it begins with these words.
    pub fn begins(&self, words: &[&str]) -> bool {
        words.iter().enumerate().all(|(index, word)| self.word(index) == Some(word))
    }

    /// Whether these words stand in it one after another.
    pub fn has(&self, words: &[&str]) -> bool {
        self.words.windows(words.len()).any(|window| {
            window.iter().zip(words).all(|(word, wanted)| matches!(word, Word::Plain(word) if word == wanted))
        })
    }

    /// Its first words as they stand in the file, for messages: without comments, and without what strings hold.
    pub fn head(&self) -> String {
        let (mut head, mut words, mut is_apart) = (String::new(), 0, false);
        for token in tokens(&self.text) {
            let part = match (token.kind, &self.text[token.start..token.end]) {
                (Kind::Space | Kind::Comment, _) => {
                    is_apart = true;
                    continue;
                }
                (Kind::Sign, ";") => break,
                (Kind::Text, _) => "'..'",
                (_, text) => text,
            };
            if words == HEAD_WORDS {
                head.push_str(" ..");
                break;
            }
            if is_apart && !head.is_empty() {
                head.push(' ');
            }
            head.push_str(part);
            words += usize::from(token.kind != Kind::Sign);
            is_apart = false;
        }
        head
    }
}

/// Splits a text at its semicolons, but for those in strings, comments, brackets and the bodies of SQL functions
/// (`BEGIN ATOMIC .. END`). The texts of the statements joined are the text.
///
/// # Errors
/// [`Unclosed`] where a string, a name or a comment does not end.
pub(super) fn split(sql: &str) -> Result<Vec<Statement>, Unclosed> {
    let mut statements = Vec::new();
    let mut current = Building::new(0);
    for token in tokens(sql) {
        if token.is_open {
            return Err(Unclosed { line: line_at(sql, token.start) });
        }
        if current.take(sql, token) {
            let next = Building::new(token.end);
            statements.push(std::mem::replace(&mut current, next).finish(sql, token.end));
        }
    }
    if current.start < sql.len() {
        statements.push(current.finish(sql, sql.len()));
    }
    Ok(statements)
}

fn line_at(sql: &str, at: usize) -> usize {
    // A carriage return alone ends a line, too.
    let before = &sql[..at];
    before.matches(['\n', '\r']).count() - before.matches("\r\n").count() + 1
}

struct Building {
    start: usize,
    first: Option<usize>,
    words: Vec<Word>,
    /// Brackets that are open.
    brackets: usize,
    /// Bodies and CASE expressions within them that are open.
    bodies: usize,
}

impl Building {
    fn new(start: usize) -> Self {
        Self { start, first: None, words: Vec::new(), brackets: 0, bodies: 0 }
    }

    /// Takes a token in. Returns whether it ends the statement.
    fn take(&mut self, sql: &str, token: Token) -> bool {
        let text = &sql[token.start..token.end];
        let word = match token.kind {
            Kind::Space | Kind::Comment => return false,
            Kind::Word => Word::Plain(text.to_ascii_lowercase()),
            Kind::Quoted => Word::Quoted(text[1..text.len() - 1].replace("\"\"", "\"")),
            Kind::Text => Word::Text,
            Kind::Sign => Word::Sign(text.chars().next().unwrap_or(' ')),
        };
        self.first.get_or_insert(token.start);
        match &word {
            Word::Sign('(') => self.brackets += 1,
            Word::Sign(')') => self.brackets = self.brackets.saturating_sub(1),
            Word::Plain(word) => self.count_bodies(word),
            _ => {}
        }
        let ends = word == Word::Sign(';') && self.brackets == 0 && self.bodies == 0;
        self.words.push(word);
        ends
    }

    fn count_bodies(&mut self, word: &str) {
        let opens = match word {
            "atomic" => self.is_routine() && matches!(self.words.last(), Some(Word::Plain(last)) if last == "begin"),
            "case" => self.bodies > 0,
            "end" => {
                self.bodies = self.bodies.saturating_sub(1);
                false
            }
            _ => false,
        };
        self.bodies += usize::from(opens);
    }

    /// Whether this creates a function or a procedure.
    fn is_routine(&self) -> bool {
        let plain = |index: usize| match self.words.get(index) {
            Some(Word::Plain(word)) => word.as_str(),
            _ => "",
        };
        let kind = if plain(1) == "or" { plain(3) } else { plain(1) };
        plain(0) == "create" && matches!(kind, "function" | "procedure")
    }

    fn finish(self, sql: &str, end: usize) -> Statement {
        let line = line_at(sql, self.first.unwrap_or(self.start));
        Statement { text: sql[self.start..end].to_owned(), line, words: self.words }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn texts(sql: &str) -> Vec<String> {
        let statements = split(sql).unwrap();
        statements.iter().filter(|s| !s.is_empty()).map(|s| s.text.trim().to_owned()).collect()
    }

    #[test]
    fn semicolons_end_statements_only_where_they_do() {
        let cases: [(&str, &[&str]); 8] = [
            ("select 1; select 2", &["select 1;", "select 2"]),
            ("select ';'; select \";\"", &["select ';';", "select \";\""]),
            ("do $$ begin a; b; end $$; select 1;", &["do $$ begin a; b; end $$;", "select 1;"]),
            ("-- a; b\nselect 1; /* c; */", &["-- a; b\nselect 1;"]),
            (
                "create rule r as on insert to t do (select 1; select 2);",
                &["create rule r as on insert to t do (select 1; select 2);"],
            ),
            (
                "create or replace function f() returns int begin atomic select case when true then 1 else 2 end; select 3; end; select 4",
                &[
                    "create or replace function f() returns int begin atomic select case when true then 1 else 2 end; select 3; end;",
                    "select 4",
                ],
            ),
            ("begin; select 1; end;", &["begin;", "select 1;", "end;"]),
            (" ; ;; ", &[]),
        ];
        for (sql, wanted) in cases {
            assert_eq!(texts(sql), wanted, "{sql}");
        }
        assert_eq!(split("select 1;\n\nselect 'a"), Err(Unclosed { line: 3 }));
    }

    #[test]
    fn lines_are_those_of_the_first_words() {
        let statements = split("-- one\n\nselect 1;\n/* two */\n  select 2;").unwrap();
        assert_eq!(statements.iter().map(|s| s.line).collect::<Vec<_>>(), [3, 5]);
        assert_eq!(statements[1].head(), "select 2");
        let statements = split("-- one\r\n--\rselect 1;\r-- two;\rcommit;").unwrap();
        assert_eq!(
            statements.iter().map(|s| (s.line, s.head())).collect::<Vec<_>>(),
            [(3, "select 1".to_owned()), (5, "commit".to_owned())]
        );
    }

    #[test]
    fn heads_are_the_beginning_as_it_stands() {
        let cases = [
            ("-- why\nselect 1/0;", "select 1/0"),
            ("select  count(*)", "select count(*)"),
            ("Insert into \"My T\" values (1)", "Insert into \"My T\" values .."),
            ("alter table shop./* here */products\n add z int", "alter table shop. products .."),
            ("create role r password 'secret'", "create role r password .."),
            ("select 'secret', $$secret$$", "select '..', '..'"),
        ];
        for (sql, wanted) in cases {
            assert_eq!(split(sql).unwrap()[0].head(), wanted, "{sql}");
        }
    }

    proptest! {
        #[test]
        fn statements_joined_are_the_text(sql in "(select|begin atomic|end|case|;|'a;'|\\$\\$;\\$\\$|--;\n|/\\*;\\*/|[(]|[)]| |create function){0,20}|[ -~\n]{0,60}") {
            if let Ok(statements) = split(&sql) {
                let joined: String = statements.iter().map(|s| s.text.as_str()).collect();
                prop_assert_eq!(joined, sql);
            }
        }
    }
}
