//! The grammar of nginx: directives that end in `;`, and those that have a block.

use crate::import::notes::Noted;
use crate::import::outcome::ImportError;
use crate::import::place::SourcePlace;

/// Blocks within blocks.
const DEPTH_MAX: usize = 64;

/// A directive, with what is in its block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Directive {
    pub(super) place: SourcePlace,
    pub(super) words: Vec<String>,
    pub(super) block: Option<Vec<Directive>>,
}

impl Directive {
    /// Its name.
    pub(super) fn name(&self) -> &str {
        self.word(0)
    }

    /// A word, or an empty text where there is none.
    pub(super) fn word(&self, at: usize) -> &str {
        self.words.get(at).map_or("", String::as_str)
    }

    /// The words behind its name.
    pub(super) fn arguments(&self) -> &[String] {
        self.words.get(1..).unwrap_or_default()
    }

    /// What is in its block.
    pub(super) fn inside(&self) -> &[Self] {
        self.block.as_deref().unwrap_or_default()
    }
}

impl Noted for Directive {
    fn place(&self) -> SourcePlace {
        self.place.clone()
    }

    fn shown(&self) -> String {
        self.words.join(" ")
    }
}

/// What a text consists of.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Lexeme {
    Word(String),
    End,
    Open,
    Close,
}

/// Reads the text of a file.
///
/// # Errors
/// When nginx could not read it either.
pub(super) fn directives(file: &str, text: &str) -> Result<Vec<Directive>, ImportError> {
    let start = SourcePlace::new(file, 1);
    let failed = |line: usize, message: &str| ImportError {
        place: start.at(line),
        message: message.to_owned(),
    };
    let mut lexer = Lexer { rest: text.chars().peekable(), line: 1 };
    // Blocks that are open, the innermost last, each with the directive that it belongs to.
    let mut open: Vec<(Directive, Vec<Directive>)> = Vec::new();
    let mut found: Vec<Directive> = Vec::new();
    let mut words: Vec<String> = Vec::new();
    let mut begun = 1;
    loop {
        let lexeme = lexer.next().map_err(|message| failed(lexer.line, message))?;
        let Some((lexeme, line)) = lexeme else { break };
        match lexeme {
            Lexeme::Word(word) => {
                if words.is_empty() {
                    begun = line;
                }
                words.push(word);
            }
            Lexeme::End if words.is_empty() => return Err(failed(line, "unexpected `;`")),
            Lexeme::End => {
                let words = std::mem::take(&mut words);
                found.push(Directive { place: start.at(begun), words, block: None });
            }
            Lexeme::Open if words.is_empty() => return Err(failed(line, "unexpected `{`")),
            Lexeme::Open if open.len() == DEPTH_MAX => {
                return Err(failed(line, "too many blocks within blocks"));
            }
            Lexeme::Open => {
                let words = std::mem::take(&mut words);
                let directive = Directive { place: start.at(begun), words, block: None };
                open.push((directive, std::mem::take(&mut found)));
            }
            Lexeme::Close => {
                if !words.is_empty() {
                    return Err(failed(line, "a directive without `;` before `}`"));
                }
                let Some((mut directive, around)) = open.pop() else {
                    return Err(failed(line, "unexpected `}`"));
                };
                directive.place = directive.place.to(line);
                directive.block = Some(std::mem::replace(&mut found, around));
                found.push(directive);
            }
        }
    }
    match (open.pop(), words.is_empty()) {
        (Some((directive, _)), _) => Err(failed(
            directive.place.line,
            &format!("the block of `{}` has no end", directive.name()),
        )),
        (None, false) => Err(failed(begun, "the file ends within a directive")),
        (None, true) => Ok(found),
    }
}

struct Lexer<'a> {
    rest: std::iter::Peekable<std::str::Chars<'a>>,
    line: usize,
}

impl Lexer<'_> {
    fn take(&mut self) -> Option<char> {
        let letter = self.rest.next()?;
        self.line += usize::from(letter == '\n');
        Some(letter)
    }

    /// The next lexeme, with the line in which it begins.
    fn next(&mut self) -> Result<Option<(Lexeme, usize)>, &'static str> {
        loop {
            let line = self.line;
            let Some(letter) = self.take() else { return Ok(None) };
            let lexeme = match letter {
                letter if letter.is_ascii_whitespace() => continue,
                '#' => {
                    while self.take().is_some_and(|letter| letter != '\n') {}
                    continue;
                }
                ';' => Lexeme::End,
                '{' => Lexeme::Open,
                '}' => Lexeme::Close,
                '"' | '\'' => Lexeme::Word(self.quoted(letter)?),
                letter => Lexeme::Word(self.plain(letter)?),
            };
            return Ok(Some((lexeme, line)));
        }
    }

    fn quoted(&mut self, quote: char) -> Result<String, &'static str> {
        let mut word = String::new();
        while let Some(letter) = self.take() {
            match letter {
                letter if letter == quote => {
                    let ends = self.rest.peek().is_none_or(|next| {
                        next.is_ascii_whitespace() || matches!(next, ';' | '{' | ')')
                    });
                    return if ends { Ok(word) } else { Err("a quote is followed by a letter") };
                }
                '\\' => self.escape(&mut word)?,
                letter => word.push(letter),
            }
        }
        Err("a quote has no end")
    }

    fn plain(&mut self, first: char) -> Result<String, &'static str> {
        let mut word = String::new();
        let mut letter = first;
        loop {
            match letter {
                '\\' => self.escape(&mut word)?,
                letter => word.push(letter),
            }
            // The brace of `${name}` opens no block.
            let is_variable = letter == '$' && self.rest.peek() == Some(&'{');
            let ends = self
                .rest
                .peek()
                .is_none_or(|next| next.is_ascii_whitespace() || matches!(next, ';' | '{'));
            if ends && !is_variable {
                return Ok(word);
            }
            match self.take() {
                Some(next) => letter = next,
                None => return Ok(word),
            }
        }
    }

    /// What follows a backslash; before most letters both stay, for regular expressions.
    fn escape(&mut self, word: &mut String) -> Result<(), &'static str> {
        let Some(letter) = self.take() else { return Err("the file ends in a backslash") };
        match letter {
            't' => word.push('\t'),
            'r' => word.push('\r'),
            'n' => word.push('\n'),
            '"' | '\'' | '\\' => word.push(letter),
            other => word.extend(['\\', other]),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<Directive>, String> {
        directives("n", text).map_err(|error| error.to_string())
    }

    // If this fails, a file is misread, or an error leads to another line.
    #[test]
    fn directives_and_blocks_are_those_of_nginx() {
        let found = read("a b 'c d';\n# x\ne {\n f \"g\\\"\" ${h}i;\n}\n").unwrap();
        assert_eq!(found[0].words, ["a", "b", "c d"]);
        assert_eq!(found[1].place.to_string(), "n:3-5");
        assert_eq!(found[1].inside()[0].words, ["f", "g\"", "${h}i"]);
        for (text, wrong) in [
            ("a", "n:1: the file ends within a directive"),
            ("a {\n b;\n", "n:1: the block of `a` has no end"),
            ("a;\n}", "n:2: unexpected `}`"),
            ("a { b }", "n:1: a directive without `;` before `}`"),
            ("a 'b", "n:1: a quote has no end"),
            ("a 'b'c;", "n:1: a quote is followed by a letter"),
            (";", "n:1: unexpected `;`"),
        ] {
            assert_eq!(read(text).unwrap_err(), wrong);
        }
    }

    fn flat(list: &[Directive], name: &str, depth: usize, out: &mut Vec<String>) {
        for directive in list {
            let words = serde_json::to_value(&directive.words).unwrap();
            out.push(format!("{name} {} {depth} {words}", directive.place.line));
            flat(directive.inside(), name, depth + 1, out);
        }
    }

    // If this fails, a file is read otherwise than by crossplane, which knows nginx's grammar well.
    #[test]
    fn the_corpus_is_read_as_by_crossplane() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/import/nginx");
        let mut names: Vec<String> = std::fs::read_dir(&folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.ends_with(".conf"))
            .collect();
        names.sort();
        let mut found = Vec::new();
        for name in &names {
            let text = std::fs::read_to_string(folder.join(name)).unwrap();
            flat(&directives(name, &text).unwrap(), name, 0, &mut found);
        }
        let said = std::fs::read_to_string(folder.join("crossplane.txt")).unwrap();
        let said: Vec<String> = said
            .lines()
            .map(|line| {
                let (head, words) = line.split_once(" [").unwrap();
                let words: serde_json::Value = serde_json::from_str(&format!("[{words}")).unwrap();
                format!("{head} {words}")
            })
            .collect();
        assert_eq!(found, said);
    }
}
