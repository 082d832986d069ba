//! Reads the few settings of an `xl` configuration that the bed needs to know.
//!
//! `xl` itself reads the whole file (`libxlu_cfg_l.l` and `libxlu_cfg_y.y` in `tools/libs/util`) and
//! reports mistakes. The bed reads the settings that name files of this machine, the type, the size,
//! and the devices that its dom0 cannot serve.

use std::collections::BTreeMap;
use std::iter::Peekable;
use std::str::Chars;

/// An `xl` configuration.
#[derive(Clone, Debug)]
pub struct XlConfig {
    text: String,
    settings: BTreeMap<String, Value>,
}

/// The value of a setting.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Value {
    /// A string or a number; `xl` makes no difference.
    Text(String),
    /// A list, and how many values it has.
    List(usize),
}

/// Lists of devices for which the dom0 of the bed has no backend.
const DEVICES: [&str; 6] = ["disk", "vif", "vfb", "pci", "usbdev", "vtpm"];

impl XlConfig {
    /// Takes the text of a file.
    pub fn new(text: String) -> Self {
        let mut settings = BTreeMap::new();
        for statement in statements(&text) {
            set(&mut settings, &statement);
        }
        Self { text, settings }
    }

    /// Returns the text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Returns the value of a setting that is not a list.
    pub fn string(&self, name: &str) -> Option<String> {
        match self.settings.get(name)? {
            Value::Text(text) => Some(text.clone()),
            Value::List(_) => None,
        }
    }

    /// Returns the value of a setting that is a number.
    fn number(&self, name: &str) -> Option<u32> {
        let text = self.string(name)?;
        // `xl` reads it with `strtol`, which knows hexadecimal and octal numbers.
        match (text.strip_prefix("0x"), text.strip_prefix('0')) {
            (Some(digits), _) => u32::from_str_radix(digits, 16).ok(),
            (None, Some(digits)) if !digits.is_empty() => u32::from_str_radix(digits, 8).ok(),
            _ => text.parse().ok(),
        }
    }

    /// Returns the MiB with which the guest starts. Without `memory` that is all of `maxmem`.
    pub fn memory(&self) -> Option<u32> {
        self.number("memory").or_else(|| self.number("maxmem"))
    }

    /// Returns the number of vCPUs with which the guest starts.
    pub fn vcpus(&self) -> Option<u32> {
        self.number("vcpus")
    }

    /// Returns the device lists that are not empty.
    pub fn devices(&self) -> Vec<&'static str> {
        let is_empty = |value: &Value| *value == Value::List(0);
        let has = |name: &&str| self.settings.get(*name).is_some_and(|value| !is_empty(value));
        DEVICES.into_iter().filter(has).collect()
    }
}

/// A word or a sign of a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    /// A name, a number, or a string without its quotes.
    Word(String),
    /// Any other character; the end of a line is `;`.
    Sign(char),
}

/// Returns the statements: the tokens between line ends and semicolons outside of lists.
fn statements(text: &str) -> Vec<Vec<Token>> {
    let mut statements = vec![Vec::new()];
    let mut depth = 0_u32;
    let mut chars = text.chars().peekable();
    while let Some(token) = next_token(&mut chars) {
        match token {
            Token::Sign('[') => depth += 1,
            Token::Sign(']') => depth = depth.saturating_sub(1),
            Token::Sign(';') if depth > 0 => continue,
            Token::Sign(';') => {
                statements.push(Vec::new());
                continue;
            }
            _ => {}
        }
        statements.last_mut().into_iter().for_each(|last| last.push(token.clone()));
    }
    statements
}

fn next_token(chars: &mut Peekable<Chars<'_>>) -> Option<Token> {
    loop {
        match chars.next()? {
            '#' => while chars.next_if(|c| *c != '\n').is_some() {},
            '\n' => return Some(Token::Sign(';')),
            quote @ ('"' | '\'') => return Some(Token::Word(string(quote, chars))),
            c if c.is_whitespace() => {}
            c if is_of_word(c) => {
                let mut word = String::from(c);
                while let Some(c) = chars.next_if(|c| is_of_word(*c)) {
                    word.push(c);
                }
                return Some(Token::Word(word));
            }
            c => return Some(Token::Sign(c)),
        }
    }
}

fn is_of_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// Returns the rest of a string, which ends with `quote` or with the line.
fn string(quote: char, chars: &mut Peekable<Chars<'_>>) -> String {
    let mut text = String::new();
    while let Some(c) = chars.next_if(|c| *c != '\n') {
        match c {
            '\\' => text.extend(chars.next()),
            c if c == quote => break,
            c => text.push(c),
        }
    }
    text
}

/// Does what a statement says: `name = value` sets, and `name += value` adds.
fn set(settings: &mut BTreeMap<String, Value>, statement: &[Token]) {
    let [Token::Word(name), rest @ ..] = statement else { return };
    let (adds, value) = match rest {
        [Token::Sign('='), value @ ..] => (false, value),
        [Token::Sign('+'), Token::Sign('='), value @ ..] => (true, value),
        _ => return,
    };
    let new = match value {
        [Token::Word(text)] => Value::Text(text.clone()),
        [Token::Sign('['), list @ ..] => {
            Value::List(list.iter().filter(|token| matches!(token, Token::Word(_))).count())
        }
        _ => return,
    };
    let old = settings.remove(name).filter(|_| adds);
    let sum = match (old, new) {
        (Some(Value::Text(old)), Value::Text(new)) => Value::Text(old + &new),
        (Some(Value::List(old)), Value::List(new)) => Value::List(old + new),
        (_, new) => new,
    };
    settings.insert(name.clone(), sum);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> XlConfig {
        XlConfig::new(text.to_owned())
    }

    #[test]
    fn settings_are_found_as_xl_reads_them() {
        let config = config(
            "# kernel = \"no\"\nkernel=\"a\"\n  kernel = 'b.bin' # the last one\ntype = \"pvh\"\n\
             disk = [ ]\nvif = [\n  'bridge=xenbr0' ]\nmemory = 64\n",
        );
        assert_eq!(config.string("kernel").unwrap(), "b.bin");
        assert_eq!(config.string("type").unwrap(), "pvh");
        assert_eq!(config.string("ramdisk"), None);
        assert_eq!(config.string("vif"), None, "a list is not a string");
        assert_eq!(config.devices(), ["vif"]);
        assert_eq!(config.memory(), Some(64));
        assert_eq!(config.vcpus(), None);
    }

    #[test]
    fn settings_share_a_line() {
        let config = config("name='a;b#c'; memory=256;vcpus = 4 # ; vcpus = 5\n;kernel=\"k\"");
        assert_eq!(config.string("name").unwrap(), "a;b#c");
        assert_eq!((config.memory(), config.vcpus()), (Some(256), Some(4)));
        assert_eq!(config.string("kernel").unwrap(), "k");
    }

    #[test]
    fn numbers_may_be_quoted_and_the_last_one_counts() {
        let memory = |text| config(text).memory();
        assert_eq!(memory("memory = \"96\""), Some(96));
        assert_eq!(memory("memory=64\nmemory='0x80'"), Some(128));
        assert_eq!(memory("memory = 010"), Some(8));
        assert_eq!(memory("maxmem = 300"), Some(300), "it starts with all of it");
        assert_eq!(memory("maxmem = 300\nmemory = 96"), Some(96));
        assert_eq!(memory("memory = lots"), None);
        assert_eq!(memory("xmemory = 5"), None);
        assert_eq!(memory(""), None);
    }

    #[test]
    fn what_is_added_counts() {
        let config = config("kernel='a'\nkernel+='b'\ndisk=[]\ndisk += [ 'x',\n'y', ]");
        assert_eq!(config.string("kernel").unwrap(), "ab");
        assert_eq!(config.devices(), ["disk"]);
    }

    #[test]
    fn an_escape_is_one_character() {
        assert_eq!(config(r#"kernel="a\"b\\c""#).string("kernel").unwrap(), r#"a"b\c"#);
        assert_eq!(config("kernel='a\nmemory=5").memory(), Some(5), "no string outlives its line");
    }
}
