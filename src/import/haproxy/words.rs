//! The words of a line of HAProxy's: quotes, escapes, comments (its manual, section 2.2).
//!
//! Variables of the environment are not resolved: what they stand for is known where HAProxy runs.

/// A line taken apart.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct SplitLine {
    pub(super) words: Vec<String>,
    /// The first variable of the environment that it names.
    pub(super) variable: Option<String>,
}

/// Splits a line.
///
/// # Errors
/// In words, when a quote or an escape has no end.
pub(super) fn split(line: &str) -> Result<SplitLine, String> {
    let mut splitter = Splitter { found: SplitLine::default(), word: None };
    let mut rest = line.chars();
    while let Some(letter) = rest.next() {
        match letter {
            '#' => break,
            letter if letter.is_whitespace() => splitter.end_word(),
            '\'' => splitter.strong(&mut rest)?,
            '"' => splitter.weak(&mut rest)?,
            '\\' => splitter.escape(&mut rest)?,
            letter => splitter.push(letter),
        }
    }
    splitter.end_word();
    Ok(splitter.found)
}

/// Where letters stand that are bytes written as `\x80` to `\xff`: in Unicode's private area.
const BYTES_FROM: u32 = 0xF700;

fn letter_of(byte: u8) -> char {
    if byte.is_ascii() {
        return char::from(byte);
    }
    char::from_u32(BYTES_FROM + u32::from(byte)).unwrap_or(char::REPLACEMENT_CHARACTER)
}

/// The byte of a letter that was written as an escape, where it is no ASCII.
pub(super) fn escaped_byte(letter: char) -> Option<u8> {
    let byte = u32::from(letter).checked_sub(BYTES_FROM)?;
    u8::try_from(byte).ok().filter(|byte| !byte.is_ascii())
}

struct Splitter {
    found: SplitLine,
    /// The word that has begun; a quoted one may be empty.
    word: Option<String>,
}

impl Splitter {
    fn push(&mut self, letter: char) {
        self.word.get_or_insert_default().push(letter);
    }

    fn end_word(&mut self) {
        self.found.words.extend(self.word.take());
    }

    fn strong(&mut self, rest: &mut std::str::Chars<'_>) -> Result<(), String> {
        self.word.get_or_insert_default();
        for letter in rest {
            if letter == '\'' {
                return Ok(());
            }
            self.push(letter);
        }
        Err("a single quote has no end".to_owned())
    }

    fn weak(&mut self, rest: &mut std::str::Chars<'_>) -> Result<(), String> {
        self.word.get_or_insert_default();
        while let Some(letter) = rest.next() {
            match letter {
                '"' => return Ok(()),
                '\\' => self.escape(rest)?,
                '$' => self.variable(rest),
                letter => self.push(letter),
            }
        }
        Err("a double quote has no end".to_owned())
    }

    /// What follows a backslash; one before any other letter stands for itself.
    fn escape(&mut self, rest: &mut std::str::Chars<'_>) -> Result<(), String> {
        let Some(letter) = rest.next() else {
            return Err("the line ends in a backslash".to_owned());
        };
        match letter {
            'n' => self.push('\n'),
            'r' => self.push('\r'),
            't' => self.push('\t'),
            'x' => {
                let digits: String = rest.by_ref().take(2).collect();
                let code = u8::from_str_radix(&digits, 16);
                let code = code.map_err(|_| format!("`\\x{digits}` is no byte in hexadecimal"))?;
                self.push(letter_of(code));
            }
            ' ' | '#' | '\\' | '"' | '\'' | '$' => self.push(letter),
            other => {
                self.push('\\');
                self.push(other);
            }
        }
        Ok(())
    }

    /// `$NAME` or `${NAME-default}`, which stays in the word as it is written.
    fn variable(&mut self, rest: &mut std::str::Chars<'_>) {
        let ahead = rest.clone();
        let is_braced = ahead.as_str().starts_with('{');
        let is_name = |letter: &char| letter.is_ascii_alphanumeric() || *letter == '_';
        let name: String = ahead.skip(usize::from(is_braced)).take_while(is_name).collect();
        self.push('$');
        if !name.is_empty() {
            self.found.variable.get_or_insert(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        split(line).unwrap().words
    }

    // If this fails, a password, a path or a payload of a check is cut.
    #[test]
    fn quotes_and_escapes_are_those_of_haproxy() {
        assert_eq!(words("  a b\tc # d"), ["a", "b", "c"]);
        assert_eq!(words(r"a\ b c\#d 'e \f' "), ["a b", "c#d", r"e \f"]);
        assert_eq!(words(r#"send "PING\r\n" ''"#), ["send", "PING\r\n", ""]);
        assert_eq!(words(r#"a"b c"'d e'"#), ["ab cd e"]);
        assert_eq!(words(r"\x41\d"), [r"A\d"]);
        for wrong in ["'a", "\"a", "a\\", r"\xZZ"] {
            assert!(split(wrong).is_err(), "{wrong}");
        }
    }

    // If this fails, an address with the name of a variable in it is taken for an address.
    #[test]
    fn variables_are_found_in_double_quotes_only() {
        let variable = |line| split(line).unwrap().variable;
        assert_eq!(variable(r#"bind "${ADDR-10.0.0.1}:80""#).as_deref(), Some("ADDR"));
        assert_eq!(variable(r#"bind "$ADDR:80""#).as_deref(), Some("ADDR"));
        assert_eq!(variable(r#"a '$b' $c "\$d""#), None);
    }
}
