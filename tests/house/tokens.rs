//! Rust source as tokens: enough to find paths and string literals, with comments gone.

/// What a token is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A word: identifier or keyword; `r#type` is `type`.
    Word(String),
    /// A string literal of any kind, without its quotes; escapes are left as they are written.
    Text(String),
    /// `::`
    PathSeparator,
    /// `=>`
    FatArrow,
    /// Any other punctuation, one character at a time.
    Punctuation(char),
    /// A number, a character or a lifetime: of no interest here.
    Other,
}

/// A token and the line on which it starts, from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    pub kind: Kind,
    pub line: usize,
}

impl Token {
    /// The word, if it is one.
    pub fn word(&self) -> Option<&str> {
        match &self.kind {
            Kind::Word(word) => Some(word),
            _ => None,
        }
    }

    /// Whether it is this word.
    pub fn is_word(&self, word: &str) -> bool {
        self.word() == Some(word)
    }

    /// Whether it is this punctuation mark.
    pub fn is(&self, mark: char) -> bool {
        self.kind == Kind::Punctuation(mark)
    }
}

/// Splits Rust source into tokens. Comments, doc comments included, leave no token.
pub fn tokens(source: &str) -> Vec<Token> {
    let mut lexer = Lexer {
        characters: source.chars().collect(),
        at: 0,
        line: 1,
        found: Vec::new(),
    };
    while lexer.at < lexer.characters.len() {
        lexer.step();
    }
    lexer.found
}

struct Lexer {
    characters: Vec<char>,
    at: usize,
    line: usize,
    found: Vec<Token>,
}

impl Lexer {
    fn peek(&self, ahead: usize) -> char {
        self.characters.get(self.at + ahead).copied().unwrap_or('\0')
    }

    fn advance(&mut self) -> char {
        let character = self.peek(0);
        if character == '\n' {
            self.line += 1;
        }
        self.at += 1;
        character
    }

    fn push(&mut self, kind: Kind, line: usize) {
        self.found.push(Token { kind, line });
    }

    fn step(&mut self) {
        let line = self.line;
        match (self.peek(0), self.peek(1)) {
            (c, _) if c.is_whitespace() => {
                self.advance();
            }
            ('/', '/') => {
                while self.at < self.characters.len() && self.peek(0) != '\n' {
                    self.advance();
                }
            }
            ('/', '*') => self.block_comment(),
            ('"', _) => self.text(),
            ('\'', _) => self.character_or_lifetime(),
            (c, _) if c.is_alphabetic() || c == '_' => self.word_or_prefixed_text(),
            (c, _) if c.is_ascii_digit() => self.number(),
            (':', ':') => {
                self.at += 2;
                self.push(Kind::PathSeparator, line);
            }
            ('=', '>') => {
                self.at += 2;
                self.push(Kind::FatArrow, line);
            }
            (mark, _) => {
                self.advance();
                self.push(Kind::Punctuation(mark), line);
            }
        }
    }

    fn block_comment(&mut self) {
        let mut depth = 0;
        while self.at < self.characters.len() {
            match (self.peek(0), self.peek(1)) {
                ('/', '*') => {
                    depth += 1;
                    self.at += 2;
                }
                ('*', '/') => {
                    depth -= 1;
                    self.at += 2;
                    if depth == 0 {
                        return;
                    }
                }
                _ => {
                    self.advance();
                }
            }
        }
    }

    fn text(&mut self) {
        let line = self.line;
        self.advance();
        let mut text = String::new();
        while self.at < self.characters.len() {
            match self.advance() {
                '"' => break,
                '\\' => {
                    text.push('\\');
                    text.push(self.advance());
                }
                character => text.push(character),
            }
        }
        self.push(Kind::Text(text), line);
    }

    /// `r"…"`, `r#"…"#`: the caller has read the prefix up to the first `#` or quote.
    fn raw_text(&mut self) {
        let line = self.line;
        let mut hashes = 0;
        while self.peek(0) == '#' {
            hashes += 1;
            self.at += 1;
        }
        self.advance();
        let mut text = String::new();
        while self.at < self.characters.len() {
            if self.peek(0) == '"' && (1..=hashes).all(|ahead| self.peek(ahead) == '#') {
                self.at += 1 + hashes;
                break;
            }
            let character = self.advance();
            text.push(character);
        }
        self.push(Kind::Text(text), line);
    }

    fn character_or_lifetime(&mut self) {
        let line = self.line;
        let is_character = self.peek(1) == '\\' || self.peek(2) == '\'';
        self.advance();
        if is_character {
            if self.advance() == '\\' {
                self.advance();
                while self.at < self.characters.len() && self.peek(0) != '\'' {
                    self.advance();
                }
            }
            self.advance();
        } else {
            while self.peek(0).is_alphanumeric() || self.peek(0) == '_' {
                self.advance();
            }
        }
        self.push(Kind::Other, line);
    }

    fn number(&mut self) {
        let line = self.line;
        loop {
            let fraction = self.peek(0) == '.' && self.peek(1).is_ascii_digit();
            if !(self.peek(0).is_alphanumeric() || self.peek(0) == '_' || fraction) {
                break;
            }
            self.advance();
        }
        self.push(Kind::Other, line);
    }

    fn word_or_prefixed_text(&mut self) {
        let line = self.line;
        let mut word = String::new();
        while self.peek(0).is_alphanumeric() || self.peek(0) == '_' {
            word.push(self.advance());
        }
        match (word.as_str(), self.peek(0), self.peek(1)) {
            ("r" | "br" | "cr", '"', _) | ("r" | "br" | "cr", '#', '"' | '#') => self.raw_text(),
            ("b" | "c", '"', _) => self.text(),
            ("b", '\'', _) => self.character_or_lifetime(),
            ("r", '#', _) => {
                self.advance();
                self.word_or_prefixed_text();
            }
            _ => self.push(Kind::Word(word), line),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(source: &str) -> Vec<String> {
        let words = tokens(source);
        words
            .iter()
            .filter_map(|token| token.word().map(str::to_owned))
            .collect()
    }

    #[test]
    fn comments_strings_characters_and_lifetimes_hide_no_word_and_leave_none() {
        let source = r####"
            // crate::hidden
            /// [`crate::hidden`]
            /* crate::hidden /* nested */ still */
            fn one<'a>(x: &'a str) { "crate::hidden \" quoted"; r#"crate "hidden""#; b"x"; '"'; '\''; b'"'; two }
            let r#type = 1.0e3; three(0..4);
        "####;
        assert_eq!(words(source), ["fn", "one", "x", "str", "two", "let", "type", "three"]);
    }

    #[test]
    fn lines_are_counted_through_comments_and_strings() {
        let found = tokens("/* a\n b */ one\n\"x\ny\" two");
        let lines: Vec<usize> = found.iter().map(|token| token.line).collect();
        assert_eq!(lines, [2, 3, 4]);
    }
}
