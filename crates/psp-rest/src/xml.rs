//! XML bodies. Requests become the JSON object that says the same, so that one reader serves both.
//!
//! What is taken is less than XML: no DOCTYPE, so no entities beyond the five of the specification and no files; UTF-8 only.
//! Attributes (namespaces among them), comments and processing instructions mean nothing here and are ignored.

use quick_xml::events::{BytesDecl, BytesRef, BytesStart, Event};
use quick_xml::reader::Reader;
use quick_xml::{XmlVersion, escape};
use serde::Serialize;
use serde_json::{Map, Value};

use axum::http::StatusCode;

use crate::problem::{Fault, Problem};

/// How deep elements may be nested: a request has two levels, and what is not known is ignored with all that is in it.
const MAX_DEPTH: usize = 8;
/// The most attributes of one element: they are compared with each other.
const MAX_ATTRIBUTES: usize = 32;
const DECLARATION: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n";

/// A request's fields.
pub(crate) struct ReadXml {
    /// A JSON object: a string for each element, or an empty object for one that has elements inside.
    pub(crate) json: Vec<u8>,
    /// What JSON cannot have wrong.
    pub(crate) faults: Vec<Fault>,
}

/// Reads an element of that name, with an element inside for each field. Those that are not known are ignored. White space
/// around a field's text is no part of it.
pub(crate) fn read(body: &[u8], root: &str, known: &'static [&'static str]) -> Result<ReadXml, Problem> {
    let text = std::str::from_utf8(body).map_err(|_| malformed("it is not UTF-8"))?;
    if !text.chars().all(is_char) {
        return Err(malformed("it holds a character that XML does not have"));
    }
    let mut reader = Reader::from_str(text.strip_prefix('\u{feff}').unwrap_or(text));
    reader.config_mut().expand_empty_elements = true;
    reader.config_mut().check_comments = true;
    let mut document = Document { root, known, ..Document::default() };
    let mut is_first = true;
    loop {
        let event = reader.read_event().map_err(|_| malformed_at(reader.error_position()))?;
        match event {
            Event::Decl(declaration) if is_first => check_declaration(&declaration)?,
            Event::Start(start) => document.open(&start)?,
            Event::End(_) => document.close(),
            Event::Text(text) => document.text(&text.xml10_content())?,
            Event::CData(text) => document.content(&text.xml10_content())?,
            Event::GeneralRef(reference) => document.content(&resolve(&reference)?)?,
            Event::Comment(_) | Event::PI(_) => {}
            Event::Eof => return document.end(),
            Event::DocType(_) => return Err(malformed("a DOCTYPE is not taken")),
            Event::Decl(_) | Event::Empty(_) => return Err(malformed_at(reader.buffer_position())),
        }
        is_first = false;
    }
}

/// What was read of a document so far.
#[derive(Default)]
struct Document<'r> {
    root: &'r str,
    known: &'static [&'static str],
    depth: usize,
    is_begun: bool,
    /// Whether there is text beside the fields.
    has_text: bool,
    field: Field,
    fields: Map<String, Value>,
    faults: Vec<Fault>,
}

/// The field that is being read.
#[derive(Default)]
struct Field {
    /// Its name, where it is known.
    name: Option<&'static str>,
    text: String,
    has_elements: bool,
}

impl Document<'_> {
    fn open(&mut self, start: &BytesStart<'_>) -> Result<(), Problem> {
        let name = start.name();
        let name = name.as_ref();
        check_tag(name, start)?;
        match self.depth {
            0 if self.is_begun => return Err(malformed("it has two root elements")),
            0 => self.begin(name),
            1 => {
                self.field = Field { name: self.known.iter().copied().find(|known| *known == name), ..Field::default() }
            }
            MAX_DEPTH.. => return Err(malformed("its elements are nested too deeply")),
            _ => self.field.has_elements = true,
        }
        self.depth += 1;
        Ok(())
    }

    fn begin(&mut self, name: &str) {
        self.is_begun = true;
        if name != self.root {
            self.faults.push(Fault::new("", format!("must be an element {}", self.root)));
        }
    }

    fn close(&mut self) {
        self.depth -= 1;
        if self.depth != 1 {
            return;
        }
        let field = std::mem::take(&mut self.field);
        let Some(name) = field.name else { return };
        let value = if field.has_elements {
            Value::Object(Map::new())
        } else {
            Value::String(field.text.trim_matches(is_space).to_owned())
        };
        // One fault for each name, however often it comes: so there are never more than fields that are known.
        if self.fields.insert(name.to_owned(), value).is_some() && self.faults.iter().all(|fault| fault.path != name) {
            self.faults.push(Fault::new(name, "must be given once"));
        }
    }

    fn text(&mut self, text: &str) -> Result<(), Problem> {
        if self.depth < 2 && text.chars().all(is_space) { Ok(()) } else { self.content(text) }
    }

    fn content(&mut self, text: &str) -> Result<(), Problem> {
        match self.depth {
            0 => return Err(malformed("it has text outside of its root element")),
            1 if self.has_text => {}
            1 => {
                self.has_text = true;
                self.faults.push(Fault::new("", "must hold elements and no text"));
            }
            2 => self.field.text.push_str(text),
            _ => {}
        }
        Ok(())
    }

    fn end(self) -> Result<ReadXml, Problem> {
        if self.depth > 0 || !self.is_begun {
            return Err(malformed("it ends too early"));
        }
        let json = serde_json::to_vec(&self.fields).map_err(|_| Problem::internal())?;
        Ok(ReadXml { json, faults: self.faults })
    }
}

/// Refuses an encoding that the bytes do not have.
fn check_declaration(declaration: &BytesDecl<'_>) -> Result<(), Problem> {
    declaration.version().map_err(|_| malformed("its declaration makes no sense"))?;
    let Some(encoding) = declaration.encoding() else { return Ok(()) };
    let encoding = encoding.map_err(|_| malformed("its declaration makes no sense"))?;
    if encoding.eq_ignore_ascii_case("utf-8") {
        return Ok(());
    }
    let detail = "XML must be in UTF-8, and its declaration names another encoding";
    Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported-media-type", detail))
}

/// Refuses what is no start of an element. Attributes must be well-formed, though they are ignored.
fn check_tag(name: &str, start: &BytesStart<'_>) -> Result<(), Problem> {
    let is_name_char = |c: char| c.is_alphanumeric() || !c.is_ascii() || matches!(c, '_' | '-' | '.' | ':');
    let begins = name.starts_with(|c: char| is_name_char(c) && !c.is_ascii_digit() && !matches!(c, '-' | '.'));
    if !begins || !name.chars().all(is_name_char) {
        return Err(malformed("an element has no name that XML takes"));
    }
    for (number, attribute) in start.attributes().enumerate() {
        let wrong = || malformed("an attribute is not well-formed");
        let attribute = attribute.map_err(|_| wrong())?;
        let value = attribute.normalized_value(XmlVersion::Implicit1_0).map_err(|_| wrong())?;
        if attribute.value.contains('<') || !value.chars().all(is_char) {
            return Err(wrong());
        }
        if number >= MAX_ATTRIBUTES {
            return Err(malformed("an element has too many attributes"));
        }
    }
    Ok(())
}

/// The text of a reference: a character, or one of the five that XML has by itself.
fn resolve(reference: &BytesRef<'_>) -> Result<String, Problem> {
    let unknown = || malformed("it refers to an entity or a character that XML does not have");
    if let Some(character) = reference.resolve_char_ref().map_err(|_| unknown())? {
        return if is_char(character) { Ok(character.to_string()) } else { Err(unknown()) };
    }
    escape::resolve_xml_entity(reference).map(str::to_owned).ok_or_else(unknown)
}

/// XML 1.0, production 2.
fn is_char(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\r' | ' '..='\u{fffd}' | '\u{10000}'..)
}

/// XML 1.0, production 3.
fn is_space(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\r' | ' ')
}

fn malformed(why: &'static str) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "malformed-xml", format!("the body is not XML that is taken: {why}"))
}

fn malformed_at(position: u64) -> Problem {
    let detail = format!("the body is not XML (byte {position})");
    Problem::new(StatusCode::BAD_REQUEST, "malformed-xml", detail)
}

/// A document with one element of that name. Characters that XML does not have are replaced.
pub(crate) fn element(root: &str, body: &impl Serialize) -> Option<String> {
    let element = quick_xml::se::to_string_with_root(root, body).ok()?;
    let replaced = element.chars().map(|c| if is_char(c) { c } else { char::REPLACEMENT_CHARACTER });
    Some(DECLARATION.chars().chain(replaced).collect())
}
