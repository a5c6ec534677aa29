//! Envelopes of SOAP 1.1, as both ends of the protocol read and write them.
//!
//! What is read is a small part of XML: UTF-8, elements and text. There is no document type definition, so there is nothing
//! external to fetch and no entity but the five predefined ones; no processing instruction; and no more depth, elements or
//! bytes than the protocol needs. Attributes mean nothing.

use std::collections::BTreeMap;
use std::fmt;

use quick_xml::NsReader;
use quick_xml::XmlVersion;
use quick_xml::escape::resolve_xml_entity;
use quick_xml::events::{BytesDecl, BytesRef, BytesStart, Event};
use quick_xml::name::{Namespace, QName, ResolveResult};
use zeroize::Zeroizing;

/// The namespace of the protocol's elements.
pub const NAMESPACE: &str = "urn:psp:gateway:1";
/// The namespace of envelopes.
const ENVELOPE_NAMESPACE: &str = "http://schemas.xmlsoap.org/soap/envelope/";
/// The type of an envelope.
pub const CONTENT_TYPE: &str = "text/xml; charset=utf-8";
/// The header that names the operation.
pub const ACTION_HEADER: &str = "soapaction";
/// The largest envelope, in bytes.
pub const MAX_BYTES: usize = 16 * 1024;
/// How deep elements may stand in each other. The protocol has five: envelope, body, operation, card, number.
const MAX_DEPTH: usize = 8;
/// The most elements of an envelope.
const MAX_ELEMENTS: usize = 128;
/// The most attributes of one element: they are compared with each other.
const MAX_ATTRIBUTES: usize = 32;

/// What an envelope holds.
#[derive(Debug, PartialEq, Eq)]
pub enum Envelope {
    /// A request, or an answer.
    Message(Message),
    /// No answer.
    Fault(Fault),
}

/// An operation with its fields.
#[derive(PartialEq, Eq)]
pub struct Message {
    /// The name of its element.
    pub operation: String,
    fields: BTreeMap<String, String>,
}

impl fmt::Debug for Message {
    /// The fields may be those of a card.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message").field("operation", &self.operation).finish_non_exhaustive()
    }
}

/// Why there is no answer.
#[derive(Debug, PartialEq, Eq)]
pub struct Fault {
    /// Whether the message was at fault, and not processed; otherwise it may have been.
    pub is_client: bool,
    /// The protocol's word for it.
    pub error: Option<String>,
}

/// Not an envelope of the protocol. Never carries what was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a SOAP 1.1 envelope of one operation, or one with a DOCTYPE, too deep or too large")]
pub struct NotSoap;

impl Message {
    /// The text of a field. Those of a group are named `group.field`.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.get(name).map(String::as_str)
    }

    /// Every field.
    pub fn fields(&self) -> impl Iterator<Item = (&str, &str)> {
        self.fields.iter().map(|(name, text)| (name.as_str(), text.as_str()))
    }
}

/// The value of [`ACTION_HEADER`] for an operation.
pub fn action(operation: &str) -> String {
    format!("\"{NAMESPACE}#{operation}\"")
}

/// Reads an envelope.
///
/// # Errors
/// [`NotSoap`].
pub fn read(bytes: &[u8]) -> Result<Envelope, NotSoap> {
    let root = Tree::read(bytes)?.root.ok_or(NotSoap)?;
    let mut parts = root.named(Space::Envelope, "Envelope")?.children.into_iter().peekable();
    if parts.peek().is_some_and(|part| part.is(Space::Envelope, "Header")) {
        let header = parts.next().ok_or(NotSoap)?;
        if header.children.iter().any(|entry| entry.must_be_understood) {
            return Err(NotSoap);
        }
    }
    let body = parts.next().ok_or(NotSoap)?.named(Space::Envelope, "Body")?;
    let [content] = <[Element; 1]>::try_from(body.children).map_err(|_| NotSoap)?;
    if parts.next().is_some() {
        return Err(NotSoap);
    }
    if content.is(Space::Envelope, "Fault") {
        return Ok(Envelope::Fault(fault_of(content)));
    }
    message_of(content).map(Envelope::Message)
}

fn message_of(content: Element) -> Result<Message, NotSoap> {
    let mut fields = BTreeMap::new();
    let mut add = |name: String, element: Element| {
        let is_leaf = element.space == Space::Protocol && element.children.is_empty();
        if is_leaf && fields.insert(name, element.text).is_none() { Ok(()) } else { Err(NotSoap) }
    };
    if content.space != Space::Protocol {
        return Err(NotSoap);
    }
    for child in content.children {
        if child.children.is_empty() {
            add(child.name.clone(), child)?;
            continue;
        }
        if child.space != Space::Protocol {
            return Err(NotSoap);
        }
        for part in child.children {
            add(format!("{}.{}", child.name, part.name), part)?;
        }
    }
    Ok(Message { operation: content.name, fields })
}

/// The parts of a fault are in no namespace (SOAP 1.1, section 4.4); its code may be refined after a dot.
fn fault_of(content: Element) -> Fault {
    let code = content.children.iter().find(|child| child.is(Space::None, "faultcode"));
    let is_client = code.is_some_and(|code| {
        let name = code.text.trim().rsplit(':').next().unwrap_or_default();
        code.text_space == Space::Envelope && name.split('.').next() == Some("Client")
    });
    let detail = content.children.into_iter().find(|child| child.is(Space::None, "detail"));
    let errors = detail.into_iter().flat_map(|detail| detail.children);
    let error = errors.into_iter().find(|child| child.is(Space::Protocol, "error"));
    Fault { is_client, error: error.map(|error| error.text) }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Space {
    Envelope,
    Protocol,
    None,
    Other,
}

impl Space {
    fn of(resolved: &ResolveResult<'_>) -> Result<Self, NotSoap> {
        match resolved {
            ResolveResult::Bound(Namespace(ENVELOPE_NAMESPACE)) => Ok(Self::Envelope),
            ResolveResult::Bound(Namespace(NAMESPACE)) => Ok(Self::Protocol),
            ResolveResult::Bound(_) => Ok(Self::Other),
            ResolveResult::Unbound => Ok(Self::None),
            ResolveResult::Unknown(_) => Err(NotSoap),
        }
    }
}

struct Element {
    space: Space,
    name: String,
    text: String,
    /// The namespace of the text, should it be a name.
    text_space: Space,
    children: Vec<Element>,
    must_be_understood: bool,
}

impl Element {
    fn is(&self, space: Space, name: &str) -> bool {
        self.space == space && self.name == name
    }

    fn named(self, space: Space, name: &str) -> Result<Self, NotSoap> {
        if self.is(space, name) { Ok(self) } else { Err(NotSoap) }
    }
}

/// A document while it is read.
#[derive(Default)]
struct Tree {
    open: Vec<Element>,
    root: Option<Element>,
    elements: usize,
}

impl Tree {
    fn read(bytes: &[u8]) -> Result<Self, NotSoap> {
        if bytes.len() > MAX_BYTES {
            return Err(NotSoap);
        }
        let text = std::str::from_utf8(bytes).map_err(|_| NotSoap)?;
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        if !text.chars().all(is_character) {
            return Err(NotSoap);
        }
        let mut reader = NsReader::from_str(text);
        reader.config_mut().check_comments = true;
        let (mut tree, mut is_first) = (Self::default(), true);
        loop {
            match reader.read_event().map_err(|_| NotSoap)? {
                Event::Start(start) => tree.start(&reader, &start)?,
                Event::Empty(start) => {
                    tree.start(&reader, &start)?;
                    tree.end(&reader)?;
                }
                Event::End(_) => tree.end(&reader)?,
                Event::Text(text) => tree.text(&text.xml10_content())?,
                Event::CData(text) if !tree.open.is_empty() => tree.text(&text.xml10_content())?,
                Event::GeneralRef(entity) if !tree.open.is_empty() => tree.reference(&entity)?,
                Event::Comment(_) => {}
                Event::Decl(declaration) if is_first => declared(&declaration)?,
                Event::CData(_) | Event::GeneralRef(_) | Event::Decl(_) | Event::PI(_) | Event::DocType(_) => {
                    return Err(NotSoap);
                }
                Event::Eof if tree.open.is_empty() => return Ok(tree),
                Event::Eof => return Err(NotSoap),
            }
            is_first = false;
        }
    }

    fn start(&mut self, reader: &NsReader<&[u8]>, start: &BytesStart<'_>) -> Result<(), NotSoap> {
        self.elements += 1;
        let is_second_root = self.open.is_empty() && self.root.is_some();
        if is_second_root || self.open.len() == MAX_DEPTH || self.elements > MAX_ELEMENTS {
            return Err(NotSoap);
        }
        let mut must_be_understood = false;
        for (number, attribute) in start.attributes().enumerate() {
            let attribute = attribute.map_err(|_| NotSoap)?;
            if number >= MAX_ATTRIBUTES {
                return Err(NotSoap);
            }
            let value = attribute.normalized_value(XmlVersion::Implicit1_0).map_err(|_| NotSoap)?;
            if !value.chars().all(is_character) {
                return Err(NotSoap);
            }
            let (space, name) = reader.resolver().resolve_attribute(attribute.key);
            let is_envelopes = Space::of(&space)? == Space::Envelope;
            must_be_understood |= is_envelopes && name.as_ref() == "mustUnderstand" && value != "0";
        }
        let (space, name) = reader.resolver().resolve_element(start.name());
        self.open.push(Element {
            space: Space::of(&space)?,
            name: name.as_ref().to_owned(),
            text: String::new(),
            text_space: Space::Other,
            children: Vec::new(),
            must_be_understood,
        });
        Ok(())
    }

    fn end(&mut self, reader: &NsReader<&[u8]>) -> Result<(), NotSoap> {
        let mut element = self.open.pop().ok_or(NotSoap)?;
        let has_text = !element.text.trim().is_empty();
        if has_text && !element.children.is_empty() {
            return Err(NotSoap);
        }
        if has_text {
            let (space, _) = reader.resolver().resolve_element(QName(element.text.trim()));
            element.text_space = Space::of(&space).unwrap_or(Space::Other);
        }
        match self.open.last_mut() {
            Some(parent) => parent.children.push(element),
            None => self.root = Some(element),
        }
        Ok(())
    }

    fn text(&mut self, text: &str) -> Result<(), NotSoap> {
        match self.open.last_mut() {
            Some(element) => element.text.push_str(text),
            None if text.trim().is_empty() => {}
            None => return Err(NotSoap),
        }
        Ok(())
    }

    /// A character by its number, or one of the five entities.
    fn reference(&mut self, reference: &BytesRef<'_>) -> Result<(), NotSoap> {
        let character = reference.resolve_char_ref().map_err(|_| NotSoap)?;
        if let Some(character) = character {
            let mut buffer = [0; 4];
            return if is_character(character) { self.text(character.encode_utf8(&mut buffer)) } else { Err(NotSoap) };
        }
        self.text(resolve_xml_entity(reference).ok_or(NotSoap)?)
    }
}

fn declared(declaration: &BytesDecl<'_>) -> Result<(), NotSoap> {
    let version = declaration.version().map_err(|_| NotSoap)?;
    let encoding = declaration.encoding().transpose().map_err(|_| NotSoap)?;
    let is_utf8 = encoding.is_none_or(|encoding| encoding.eq_ignore_ascii_case("utf-8"));
    if version == "1.0" && is_utf8 { Ok(()) } else { Err(NotSoap) }
}

/// The characters of XML 1.0 (section 2.2); surrogates are none of Rust's.
fn is_character(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\r' | '\u{20}'..='\u{fffd}' | '\u{10000}'..)
}

/// Writes the envelope of one operation.
pub struct Writer {
    operation: String,
    bytes: Zeroizing<Vec<u8>>,
}

impl Writer {
    /// An envelope for an operation, with room for that many bytes.
    pub fn new(operation: &str, capacity: usize) -> Self {
        let mut writer = Self { operation: operation.to_owned(), bytes: Zeroizing::new(Vec::with_capacity(capacity)) };
        writer.push_head();
        writer.push(&["<", operation, " xmlns=\"", NAMESPACE, "\">"]);
        writer
    }

    /// One more field.
    pub fn field(&mut self, name: &str, text: &str) {
        self.push(&["<", name, ">"]);
        self.push_text(text);
        self.close(name);
    }

    /// Begins a group of fields.
    pub fn open(&mut self, name: &str) {
        self.push(&["<", name, ">"]);
    }

    /// Ends a group of fields.
    pub fn close(&mut self, name: &str) {
        self.push(&["</", name, ">"]);
    }

    /// The envelope.
    pub fn finish(mut self) -> Zeroizing<Vec<u8>> {
        let operation = std::mem::take(&mut self.operation);
        self.close(&operation);
        self.push_tail();
        self.bytes
    }

    /// The envelope of a fault.
    pub fn fault(fault: &Fault) -> Zeroizing<Vec<u8>> {
        let mut writer = Self { operation: String::new(), bytes: Zeroizing::default() };
        let error = fault.error.as_deref().unwrap_or("fault");
        writer.push_head();
        let code = if fault.is_client { "soap:Client" } else { "soap:Server" };
        writer.push(&["<soap:Fault><faultcode>", code, "</faultcode><faultstring>"]);
        writer.push_text(error);
        writer.push(&["</faultstring><detail><error xmlns=\"", NAMESPACE, "\">"]);
        writer.push_text(error);
        writer.push(&["</error></detail></soap:Fault>"]);
        writer.push_tail();
        writer.bytes
    }

    fn push_head(&mut self) {
        const HEAD: &str = "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n";
        self.push(&[HEAD, "<soap:Envelope xmlns:soap=\"", ENVELOPE_NAMESPACE, "\"><soap:Body>"]);
    }

    fn push_tail(&mut self) {
        self.push(&["</soap:Body></soap:Envelope>"]);
    }

    fn push(&mut self, parts: &[&str]) {
        for part in parts {
            self.bytes.extend_from_slice(part.as_bytes());
        }
    }

    /// Escapes in place, so that no text has a copy. What XML has no character for becomes U+FFFD; a carriage return would
    /// be read as a line feed.
    fn push_text(&mut self, text: &str) {
        for c in text.chars() {
            match c {
                '<' => self.push(&["&lt;"]),
                '>' => self.push(&["&gt;"]),
                '&' => self.push(&["&amp;"]),
                '\r' => self.push(&["&#13;"]),
                c => {
                    let c = if is_character(c) { c } else { char::REPLACEMENT_CHARACTER };
                    let mut buffer = Zeroizing::new([0; 4]);
                    let encoded = c.encode_utf8(&mut *buffer);
                    self.bytes.extend_from_slice(encoded.as_bytes());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
