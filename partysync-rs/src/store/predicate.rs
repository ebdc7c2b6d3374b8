//! A condition of the application's, as it is put into statements of the framework's: looked at
//! closely enough that it stays a condition, wherever it stands.

use crate::{Code, Error, Result};

/// A condition over some columns, with `?` for its parameters.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Predicate {
    /// What stands before, between and behind the parameters.
    parts: Vec<String>,
    /// The names that it may be using, in lower case.
    words: Vec<String>,
    /// The names that it has in quotes.
    quoted: Vec<String>,
}

impl Predicate {
    /// # Errors
    /// [`Code::Sql`] for what is no condition by itself.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let mut scan = Scan { rest: text, parts: vec![String::new()], depth: 0 };
        let (mut words, mut quoted) = (Vec::new(), Vec::new());
        while let Some(c) = scan.rest.chars().next() {
            match c {
                '\'' => drop(scan.quoted('\'')?),
                '"' | '`' => quoted.push(scan.quoted(c)?),
                '[' => quoted.push(scan.quoted(']')?),
                '?' => scan.parameter()?,
                '(' => scan.open(),
                ')' => scan.close()?,
                ';' => return Err(refuse("a `;` ends it in its middle")),
                ':' | '@' | '$' | '#' => {
                    return Err(refuse(&format!("`{c}`: a parameter is a `?` and nothing else")));
                }
                '\0' => return Err(refuse("it has a NUL character")),
                '-' if scan.rest.starts_with("--") => scan.skip_to("\n"),
                '/' if scan.rest.starts_with("/*") => scan.skip_to("*/"),
                c if is_name(c) => words.push(scan.word().to_ascii_lowercase()),
                c => scan.take(c.len_utf8()),
            }
        }
        if scan.depth != 0 {
            return Err(refuse("it has a `(` without its `)`"));
        }
        Ok(Self { parts: scan.parts, words, quoted })
    }

    /// How many parameters it takes.
    pub(crate) fn parameters(&self) -> usize {
        self.parts.len() - 1
    }

    /// Looks that each name in quotes is a column: SQLite takes any other for a text. And that no
    /// table is named, whose rows may change without a change of these.
    pub(crate) fn check_names(&self, columns: &[&str], tables: &[String]) -> Result<()> {
        let is_column = |name: &str| columns.iter().any(|c| c.eq_ignore_ascii_case(name));
        if let Some(name) = self.quoted.iter().find(|name| !is_column(name)) {
            return Err(refuse(&format!("there is no column `{name}` that it may name")));
        }
        let is_table = |word: &str| {
            let own = ["sqlite_", "_partysync", "pragma_"].iter().any(|own| word.starts_with(own));
            own || tables.iter().any(|table| table.eq_ignore_ascii_case(word))
        };
        // A column may have the name of a table.
        let before = std::iter::once("").chain(self.words.iter().map(String::as_str));
        let mut words = self.words.iter().zip(before);
        let reads = |(word, before): &(&String, &str)| {
            is_table(word) && (!is_column(word) || ["from", "join"].contains(before))
        };
        match words.find(reads) {
            None => Ok(()),
            Some((table, _)) => Err(refuse(&format!(
                "it reads `{table}`: read that in `visible`, by `room.sql()`, and give what it \
                 says as a parameter (a JSON array for `json_each(?)`, say)"
            ))),
        }
    }

    /// The condition, for a `WHERE`, with its parameters taken from this expression: a JSON array.
    /// Nothing is put around it that SQLite would not look through for an index.
    pub(crate) fn over(&self, parameters: &str) -> String {
        let mut sql = String::from("(");
        for (place, part) in self.parts.iter().enumerate() {
            if place > 0 {
                sql.push_str(&format!("json_extract({parameters}, '$[{}]')", place - 1));
            }
            sql.push_str(part);
        }
        sql.push(')');
        sql
    }
}

fn refuse(why: &str) -> Error {
    Error::new(Code::Sql, format!("the condition of `Visible::rows`: {why}"))
}

fn is_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

struct Scan<'a> {
    rest: &'a str,
    parts: Vec<String>,
    depth: u32,
}

impl<'a> Scan<'a> {
    /// Goes on behind so many bytes, which belong to the condition.
    fn take(&mut self, bytes: usize) {
        let (taken, rest) = self.rest.split_at_checked(bytes).unwrap_or((self.rest, ""));
        if let Some(part) = self.parts.last_mut() {
            part.push_str(taken);
        }
        self.rest = rest;
    }

    fn word(&mut self) -> &'a str {
        let end = self.rest.find(|c| !is_name(c)).unwrap_or(self.rest.len());
        let word = self.rest.get(..end).unwrap_or_default();
        self.take(end);
        word
    }

    /// What stands between quotes.
    fn quoted(&mut self, end: char) -> Result<String> {
        let mut chars = self.rest.char_indices().skip(1).peekable();
        let mut text = String::new();
        while let Some((at, c)) = chars.next() {
            if c != end {
                text.push(c);
            } else if end != ']' && chars.next_if(|(_, next)| *next == end).is_some() {
                text.push(end);
            } else {
                self.take(at + c.len_utf8());
                return Ok(text);
            }
        }
        Err(refuse("it has a quote without its end"))
    }

    fn parameter(&mut self) -> Result<()> {
        self.rest = self.rest.get(1..).unwrap_or_default();
        if self.rest.starts_with(|c: char| c.is_ascii_digit()) {
            return Err(refuse("a parameter with a number: it is a `?` and nothing else"));
        }
        self.parts.push(String::new());
        Ok(())
    }

    fn open(&mut self) {
        self.depth += 1;
        self.take(1);
    }

    fn close(&mut self) -> Result<()> {
        let without = || refuse("it has a `)` without its `(`");
        self.depth = self.depth.checked_sub(1).ok_or_else(without)?;
        self.take(1);
        Ok(())
    }

    /// Leaves a comment out. What begins it does not end it.
    fn skip_to(&mut self, end: &str) {
        const BEGIN: usize = 2;
        let within = self.rest.get(BEGIN..).unwrap_or_default();
        let comment = within.find(end).map_or(within.len(), |at| at + end.len());
        self.rest = within.get(comment..).unwrap_or_default();
        if let Some(part) = self.parts.last_mut() {
            part.push(' ');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_those_outside_of_texts_and_comments() {
        let text = "a = ? AND b <> '?' -- ?\n OR /* ? */ \"c\" IN (SELECT value FROM json_each(?))";
        let predicate = Predicate::parse(text).unwrap();
        assert_eq!(predicate.parameters(), 2);
        assert_eq!(
            predicate.over("p"),
            "(a = json_extract(p, '$[0]') AND b <> '?'   OR   \"c\" IN \
             (SELECT value FROM json_each(json_extract(p, '$[1]'))))"
        );
        let comment = Predicate::parse("a = 1 /*/ OR 1 /*/").unwrap();
        assert_eq!(comment.over("p"), "(a = 1  )");
        predicate.check_names(&["c"], &["b".to_owned()]).unwrap_err();
        predicate.check_names(&["a", "b"], &[]).unwrap_err();
        predicate.check_names(&["b", "c"], &["b".to_owned()]).unwrap();
        let reads = Predicate::parse("b IN (SELECT a FROM b)").unwrap();
        reads.check_names(&["b"], &["b".to_owned()]).unwrap_err();
    }

    #[test]
    fn what_would_not_stay_a_condition_is_refused() {
        for text in [
            "1) OR (1",
            "a = (1",
            "a = 'x",
            "\"a = 1",
            "[a",
            "1; SELECT 2",
            "a = ?1",
            "a = :a",
            "a = @a",
            "a = $a",
            "a \0",
        ] {
            assert_eq!(Predicate::parse(text).unwrap_err().code(), Code::Sql, "{text}");
        }
        let own = Predicate::parse("1 IN (SELECT 1 FROM sqlite_master)").unwrap();
        own.check_names(&[], &[]).unwrap_err();
    }

    #[test]
    fn an_end_in_a_comment_ends_nothing() {
        let predicate = Predicate::parse("a = 1 -- )").unwrap();
        assert_eq!(predicate.over("p"), "(a = 1  )");
        assert_eq!(Predicate::parse("a = 1 /* )").unwrap().over("p"), "(a = 1  )");
    }
}
