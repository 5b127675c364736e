//! What the user wrote: a [`Section`] is one table of the file with `[defaults]` behind it.
//!
//! It hands out values with their places and reports unknown keys. It does not know what a value
//! means; that is for the module that reads the table.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::key::{Key, KeyTable, Shape};
use super::report::{FilePlace, Finding, Report};

/// One value with its place and the name messages call it by.
#[derive(Debug, Clone)]
pub(super) struct Value<'t> {
    pub(super) data: &'t DeValue<'t>,
    pub(super) place: FilePlace,
    pub(super) name: String,
}

impl<'t> Value<'t> {
    /// The elements of an array, each with its own place.
    pub(super) fn elements(&self) -> Option<Vec<Value<'t>>> {
        let DeValue::Array(array) = self.data else { return None };
        let elements = array.iter().enumerate().map(|(index, element)| Value {
            data: element.get_ref(),
            place: FilePlace {
                span: element.span(),
                path: format!("{}[{index}]", self.place.path),
            },
            name: self.name.clone(),
        });
        Some(elements.collect())
    }

    /// How messages call it: the key, or an entry of the array it holds.
    pub(super) fn label(&self) -> String {
        let name = shown(&self.name);
        if self.is_element() { format!("an entry of `{name}`") } else { format!("`{name}`") }
    }

    /// Whether it stands in an array, without a key of its own.
    pub(super) fn is_element(&self) -> bool {
        self.place.path.ends_with(']')
    }

    /// Whether it is `false`.
    pub(super) fn is_false(&self) -> bool {
        matches!(self.data, DeValue::Boolean(false))
    }

    /// The text, if it is a string.
    pub(super) fn text(&self) -> Option<&'t str> {
        match self.data {
            DeValue::String(text) => Some(text),
            _ => None,
        }
    }
}

/// What became of a key.
#[derive(Debug, Clone)]
pub(super) enum Field<T> {
    /// Not in the file.
    Absent,
    /// In the file and already reported as wrong.
    Bad,
    /// In the file and good.
    Given(T, FilePlace),
}

impl<T> Field<T> {
    pub(super) fn is_absent(&self) -> bool {
        matches!(self, Self::Absent)
    }

    pub(super) fn place(&self) -> Option<&FilePlace> {
        match self {
            Self::Given(_, place) => Some(place),
            _ => None,
        }
    }

    pub(super) fn value(self) -> Option<T> {
        match self {
            Self::Given(value, _) => Some(value),
            _ => None,
        }
    }

    /// The field with its value changed; one without a value stays as it is.
    pub(super) fn map<U>(self, change: impl FnOnce(T) -> U) -> Field<U> {
        match self {
            Self::Absent => Field::Absent,
            Self::Bad => Field::Bad,
            Self::Given(value, place) => Field::Given(change(value), place),
        }
    }

    pub(super) fn or(self, default: T) -> T {
        self.value().unwrap_or(default)
    }
}

/// A table of the file.
#[derive(Debug, Clone)]
struct Layer<'t> {
    entries: &'t DeTable<'t>,
    header: FilePlace,
}

/// A table of the file, with the table of `[defaults]` that stands behind it.
#[derive(Debug, Clone)]
pub(super) struct Section<'t> {
    /// Where its keys stand in the table of keys.
    pub(super) table: &'static KeyTable,
    layers: Vec<Layer<'t>>,
    /// True for `[defaults]` read by itself: nothing is required and nothing is compared.
    pub(super) partial: bool,
}

impl<'t> Section<'t> {
    /// The section of a value, if that is a table.
    pub(super) fn of(value: &Value<'t>, table: &'static KeyTable) -> Option<Self> {
        let DeValue::Table(entries) = value.data else { return None };
        let layers = vec![Layer { entries, header: value.place.clone() }];
        Some(Self { table, layers, partial: false })
    }

    /// The root of a document.
    pub(super) fn root(entries: &'t DeTable<'t>, table: &'static KeyTable) -> Self {
        let header = FilePlace { span: 0..0, path: String::new() };
        Self { table, layers: vec![Layer { entries, header }], partial: false }
    }

    /// A table that is not in the file: every key has its default.
    pub(super) fn absent(table: &'static KeyTable) -> Self {
        Self { table, layers: Vec::new(), partial: false }
    }

    /// Lets `defaults` answer for what this table leaves out.
    pub(super) fn over(mut self, defaults: Option<&Section<'t>>) -> Self {
        self.layers.extend(defaults.iter().flat_map(|section| section.layers.iter().cloned()));
        self
    }

    /// `[defaults]` read by itself, as one of the tables it stands for.
    pub(super) fn as_partial(&self, table: &'static KeyTable) -> Self {
        Self { table, layers: self.layers.clone(), partial: true }
    }

    /// The table as a part of `[defaults]`, or not.
    pub(super) fn with_partial(mut self, partial: bool) -> Self {
        self.partial = partial;
        self
    }

    /// The row of a key of this table.
    pub(super) fn key(&self, name: &str) -> Option<&'static Key> {
        self.table.find(name)
    }

    /// Where the table itself begins.
    pub(super) fn header(&self) -> FilePlace {
        self.layers
            .first()
            .map_or(FilePlace { span: 0..0, path: String::new() }, |layer| layer.header.clone())
    }

    /// The value of a key; none where `false` takes it back.
    pub(super) fn get(&self, name: &str) -> Option<Value<'t>> {
        let value = self.layers.iter().find_map(|layer| layer.get(name))?;
        let can_be_off = || self.key(name).is_some_and(Key::can_be_off);
        (!(value.is_false() && can_be_off())).then_some(value)
    }

    /// Reads a key that stands for one value.
    pub(super) fn read<T>(
        &self,
        name: &str,
        report: &mut Report<'_>,
        convert: impl FnOnce(&Value<'t>, &mut Report<'_>) -> Option<T>,
    ) -> Field<T> {
        let Some(value) = self.get(name) else { return Field::Absent };
        match convert(&value, report) {
            Some(read) => Field::Given(read, value.place),
            None => Field::Bad,
        }
    }

    /// Opens a table inside this one, merged key by key with that of `[defaults]`; `None` as well
    /// when it is switched off.
    pub(super) fn open(&self, name: &str, report: &mut Report<'_>) -> Option<Section<'t>> {
        let (table, can_be_off) = match self.key(name)?.shape {
            Shape::Table(table) => (table, false),
            Shape::TableOrFalse(table) | Shape::TableOrTables(table) => (table, true),
            _ => return None,
        };
        let mut layers = Vec::new();
        for value in self.layers.iter().filter_map(|layer| layer.get(name)) {
            match (Section::of(&value, table), value.data) {
                (Some(section), _) => layers.extend(section.layers),
                // Off, whatever [defaults] says behind it.
                (None, DeValue::Boolean(false)) if can_be_off => break,
                (None, _) => report
                    .error(&value.place, no_table(name, table, can_be_off.then_some(value.data))),
            }
        }
        if layers.is_empty() {
            None
        } else {
            Some(Section { table, layers, partial: self.partial })
        }
    }

    /// Opens a table inside this one, or each of an array of tables; each is merged key by key with
    /// the table of `[defaults]`. None when it is switched off.
    pub(super) fn open_each(&self, name: &str, report: &mut Report<'_>) -> Vec<Section<'t>> {
        let own = self.layers.first().filter(|_| !self.partial).and_then(|layer| layer.get(name));
        let table = self.key(name).and_then(|key| key.shape.table());
        let elements = own.as_ref().and_then(|value| value.elements());
        let (Some(elements), Some(table)) = (elements, table) else {
            return self.open(name, report).into_iter().collect();
        };
        let layers = self.layers.iter().skip(1).cloned().collect();
        let behind = Section { layers, ..*self }.open(name, report);
        let mut sections = Vec::new();
        for value in &elements {
            match Section::of(value, table) {
                Some(section) => sections.push(section.over(behind.as_ref())),
                None => report.error(&value.place, no_table(name, table, None)),
            }
        }
        sections
    }

    /// Opens a table inside this one; where it is not in the file every key has its default.
    pub(super) fn open_or_absent(&self, name: &str, report: &mut Report<'_>) -> Section<'t> {
        let table = self.key(name).and_then(|key| key.shape.table()).unwrap_or(self.table);
        self.open(name, report).unwrap_or(Section::absent(table))
    }

    /// The value of a key that the table itself has, not `[defaults]`.
    pub(super) fn own(&self, name: &str) -> Option<Value<'t>> {
        let first = self.layers.first().filter(|layer| !layer.is_of_defaults())?;
        let is_own = first.get(name).is_some();
        self.get(name).filter(|_| is_own && !self.partial)
    }

    /// The keys of the table itself, in the order of the file.
    pub(super) fn entries(&self) -> Vec<(Value<'t>, Range<usize>)> {
        let mut entries = self.layers.first().map_or_else(Vec::new, Layer::entries);
        entries.sort_by_key(|(_, key)| key.start);
        entries
    }
}

impl<'t> Layer<'t> {
    /// Whether it stands in `[defaults]`.
    fn is_of_defaults(&self) -> bool {
        self.header.path.split('.').next() == Some("defaults")
    }

    fn get(&self, name: &str) -> Option<Value<'t>> {
        let (key, value) = self.entries.get_key_value(name)?;
        Some(self.value(key.get_ref(), value))
    }

    fn entries(&self) -> Vec<(Value<'t>, Range<usize>)> {
        let pairs = self.entries.iter();
        pairs.map(|(key, value)| (self.value(key.get_ref(), value), key.span())).collect()
    }

    fn value(&self, name: &str, value: &'t Spanned<DeValue<'t>>) -> Value<'t> {
        let path = join(&self.header.path, name);
        Value {
            data: value.get_ref(),
            place: FilePlace { span: value.span(), path },
            name: name.to_owned(),
        }
    }
}

/// A path one key longer, quoted as TOML wants it.
pub(super) fn join(path: &str, name: &str) -> String {
    let name = bare_or_quoted(name);
    if path.is_empty() { name } else { format!("{path}.{name}") }
}

/// A key as TOML wants it.
pub(super) fn bare_or_quoted(name: &str) -> String {
    let is_bare = |letter: char| letter.is_ascii_alphanumeric() || letter == '_' || letter == '-';
    if !name.is_empty() && name.chars().all(is_bare) { name.to_owned() } else { quoted(name) }
}

/// A string as TOML wants it.
pub(super) fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for letter in text.chars() {
        match letter {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            letter if letter.is_control() => {
                out.push_str(&format!("\\u{:04X}", u32::from(letter)));
            }
            letter => out.push(letter),
        }
    }
    out.push('"');
    out
}

/// A user's word, safe and short enough to stand in a message.
pub(super) fn shown(word: &str) -> String {
    const LENGTH_MAX: usize = 60;
    let mut out = String::new();
    for letter in word.chars().take(LENGTH_MAX) {
        if letter.is_control() {
            out.extend(letter.escape_default());
        } else {
            out.push(letter);
        }
    }
    if word.chars().count() > LENGTH_MAX {
        out.push('…');
    }
    out
}

/// What to say about something else where a table belongs: `or_false` is what stands there, where
/// `false` could.
fn no_table(name: &str, table: &KeyTable, or_false: Option<&DeValue<'_>>) -> Finding {
    let sample = sample_table(name, table);
    let finding = Finding::new(format!("`{name}` must be a table"));
    let Some(data) = or_false else { return finding.expected(sample) };
    let finding = Finding::new(format!("`{name}` must be a table or false"));
    let finding = finding.expected(format!("{sample}, or `{name} = false`"));
    if matches!(data, DeValue::Boolean(true)) {
        finding.hint("a table turns it on; `false` turns off what [defaults] gives")
    } else {
        finding
    }
}

/// How a table of that name is written as a value.
fn sample_table(name: &str, table: &KeyTable) -> String {
    match table.sample {
        "" => format!("a table `{name}`"),
        sample => format!("a table such as `{sample}`"),
    }
}

/// `a`, `a or b`, `a, b or c`.
pub(super) fn join_or(words: &[String]) -> String {
    match words {
        [] => String::new(),
        [one] => one.clone(),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
    }
}
