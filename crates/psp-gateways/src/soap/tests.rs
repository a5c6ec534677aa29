use std::fmt::Write;

use super::*;

fn wrapped(body: &str) -> String {
    format!("<e:Envelope xmlns:e=\"{ENVELOPE_NAMESPACE}\"><e:Body>{body}</e:Body></e:Envelope>")
}

fn operation(fields: &str) -> String {
    wrapped(&format!("<find xmlns=\"{NAMESPACE}\">{fields}</find>"))
}

fn message(text: &str) -> Message {
    match read(text.as_bytes()) {
        Ok(Envelope::Message(message)) => message,
        other => panic!("{text}: {other:?}"),
    }
}

fn is_refused(text: &str) -> bool {
    read(text.as_bytes()) == Err(NotSoap)
}

#[test]
fn what_is_written_is_read() {
    let nasty = "a<b>&c;\"d\"'e' ]]> é\u{1f600}\t\r\n";
    let mut writer = Writer::new("authorize", 10);
    writer.field("reference", nasty);
    writer.open("card");
    writer.field("holder_name", "Luke & Leia");
    writer.close("card");
    writer.field("empty", "");
    let read = message(std::str::from_utf8(&writer.finish()).unwrap());
    assert_eq!(read.operation, "authorize");
    let fields: Vec<_> = read.fields().collect();
    assert_eq!(fields, [("card.holder_name", "Luke & Leia"), ("empty", ""), ("reference", nasty)]);
    assert_eq!(read.field("card.number"), None);
    assert!(!format!("{read:?}").contains("Luke"), "fields are not shown");
}

#[test]
fn a_character_that_xml_lacks_is_replaced() {
    let mut writer = Writer::new("find", 10);
    writer.field("reference", "a\u{0}b\u{ffff}");
    let text = writer.finish();
    assert_eq!(message(std::str::from_utf8(&text).unwrap()).field("reference"), Some("a\u{fffd}b\u{fffd}"));
}

#[test]
fn prefixes_comments_and_sections_of_characters_mean_what_xml_says() {
    let prefixed = format!(
        "\u{feff}<?xml version='1.0' encoding='UTF-8'?>\n<!-- hello -->\n\
         <e:Envelope xmlns:e='{ENVELOPE_NAMESPACE}' xmlns:p='{NAMESPACE}'><e:Header><p:a/></e:Header>\n <e:Body>\
         <p:find x='1'><p:reference>12<!-- 3 --><![CDATA[<4>]]>&amp;&#x35;&#54;</p:reference></p:find></e:Body>\
         </e:Envelope>\n"
    );
    let read = message(&prefixed);
    assert_eq!((read.operation.as_str(), read.field("reference")), ("find", Some("12<4>&56")));
}

#[test]
fn a_document_type_is_refused_with_all_that_it_could_do() {
    let body = operation("<reference>&x;</reference>");
    let mut bombs = String::from("<!DOCTYPE e [<!ENTITY x0 \"ha\">");
    for level in 1..20 {
        let below = format!("&x{};", level - 1).repeat(10);
        write!(bombs, "<!ENTITY x{level} \"{below}\">").unwrap();
    }
    for head in [
        "<!DOCTYPE e>",
        "<!DOCTYPE e SYSTEM \"http://127.0.0.1:1/x.dtd\">",
        "<!DOCTYPE e [<!ENTITY x SYSTEM \"file:///etc/passwd\">]>",
        "<!DOCTYPE e [<!ENTITY % x SYSTEM \"file:///etc/passwd\"> %x;]>",
        "<!DOCTYPE e [<!ENTITY x \"ha\">]>",
        &format!("{bombs}]>"),
    ] {
        assert!(is_refused(&format!("{head}{}", operation("<reference>1</reference>"))), "{head}");
        assert!(is_refused(&format!("{head}{body}")), "{head}");
    }
    assert!(is_refused(&operation("<!DOCTYPE e><reference>1</reference>")));
}

#[test]
fn no_entity_but_the_five_is_known() {
    let all = message(&operation("<reference>&lt;&gt;&amp;&apos;&quot;</reference>"));
    assert_eq!(all.field("reference"), Some("<>&'\""));
    for wrong in ["&nbsp;", "&x;", "&", "&#0;", "&#1;", "&#xFFFF;", "&#xD800;", "&#x110000;", "&#-5;", "&#;"] {
        assert!(is_refused(&operation(&format!("<reference>{wrong}</reference>"))), "{wrong}");
        assert!(is_refused(&operation(&format!("<reference x=\"{wrong}\">1</reference>"))) || wrong == "&", "{wrong}");
    }
}

#[test]
fn depth_elements_attributes_and_bytes_are_bounded() {
    let nested = |depth: usize| operation(&format!("{}{}", "<a>".repeat(depth), "</a>".repeat(depth)));
    assert!(!is_refused(&nested(2)), "a field in a group");
    for depth in [3, 5, 6, 100, 1_000] {
        assert!(is_refused(&nested(depth)), "{depth}");
    }
    let many = |count: usize| {
        let fields = (0..count).fold(String::new(), |mut fields, place| {
            write!(fields, "<a{place}/>").unwrap();
            fields
        });
        operation(&fields)
    };
    assert!(!is_refused(&many(MAX_ELEMENTS - 3)) && is_refused(&many(MAX_ELEMENTS - 2)));
    let attributes = |count: usize| {
        let text = (0..count).fold(String::new(), |mut text, place| {
            write!(text, " a{place}='1'").unwrap();
            text
        });
        operation(&format!("<reference{text}>1</reference>"))
    };
    assert!(!is_refused(&attributes(MAX_ATTRIBUTES)) && is_refused(&attributes(MAX_ATTRIBUTES + 1)));
    let large = |bytes: usize| operation(&format!("<reference>{}</reference>", "x".repeat(bytes)));
    let rest = large(0).len();
    assert!(!is_refused(&large(MAX_BYTES - rest)) && is_refused(&large(MAX_BYTES - rest + 1)));
    let prefixes = (0..500).fold(String::new(), |mut text, place| {
        write!(text, " xmlns:p{place}='u'").unwrap();
        text
    });
    assert!(is_refused(&operation(&format!("<reference{prefixes}>1</reference>"))), "prefixes are counted");
}

#[test]
fn what_is_no_envelope_of_one_operation_is_refused() {
    let good = operation("<reference>1</reference>");
    assert!(!is_refused(&good));
    let other = format!("<find xmlns=\"{NAMESPACE}\"/>");
    for wrong in [
        "",
        " ",
        "{}",
        "<a/>",
        "<a>",
        &good[..good.len() - 1],
        &format!("{good}{good}"),
        &format!("{good} x"),
        &format!("x{good}"),
        &format!("{good}<?php ?>"),
        &format!(" <?xml version=\"1.0\"?>{good}"),
        &format!("<?xml version=\"1.1\"?>{good}"),
        &format!("<?xml version=\"1.0\" encoding=\"utf-16\"?>{good}"),
        &format!("<?xml-stylesheet href=\"http://127.0.0.1\"?>{good}"),
        &good.replace("schemas.xmlsoap.org/soap", "www.w3.org/2003/05/soap"),
        &good.replace(NAMESPACE, "urn:psp:gateway:2"),
        &good.replace("xmlns:e", "xmlns:f"),
        &good.replace("Body", "Content"),
        &wrapped(""),
        &wrapped("text"),
        &wrapped(&format!("{other}{other}")),
        &wrapped("<find/>"),
        &operation("text<reference>1</reference>"),
        &operation("<reference>1</reference><reference>2</reference>"),
        &operation("<reference>1<part/></reference>"),
        &operation("<reference xmlns=\"urn:x\">1</reference>"),
        &operation("<p:reference>1</p:reference>"),
        &operation("<reference a=\"1\" a=\"2\">1</reference>"),
        &operation("<reference>1</REFERENCE>"),
        &operation("<reference>1\u{1}</reference>"),
        &good.replace("<e:Body>", "<e:Header><x e:mustUnderstand=\"1\"/></e:Header><e:Body>"),
        &good.replace("</e:Body>", "</e:Body><e:Body/>"),
    ] {
        assert!(is_refused(wrong), "{wrong}");
    }
    assert_eq!(read(&[0xff, 0xfe, b'<', 0]), Err(NotSoap), "UTF-16");
    let latin1: Vec<u8> = good.replace('1', "?").bytes().map(|b| if b == b'?' { 0xe9 } else { b }).collect();
    assert_eq!(read(&latin1), Err(NotSoap));
}

#[test]
fn a_fault_says_whose_it_is() {
    let fault =
        |is_client, error: Option<&str>| Ok(Envelope::Fault(Fault { is_client, error: error.map(str::to_owned) }));
    for is_client in [true, false] {
        let written = Writer::fault(&Fault { is_client, error: Some("unknown_reference".into()) });
        assert_eq!(read(&written), fault(is_client, Some("unknown_reference")));
    }
    let coded = |code: &str| {
        let text = wrapped(&format!("<e:Fault><faultcode>{code}</faultcode><faultstring>no</faultstring></e:Fault>"));
        read(text.as_bytes())
    };
    for (code, is_client) in [
        ("e:Client", true),
        (" e:Client.Authentication ", true),
        ("e:Server", false),
        ("e:MustUnderstand", false),
        ("e:Clients", false),
        ("Client", false),
        ("x:Client", false),
        ("", false),
    ] {
        assert_eq!(coded(code), fault(is_client, None), "{code}");
    }
    assert_eq!(read(wrapped("<e:Fault/>").as_bytes()), fault(false, None));
}

proptest::proptest! {
    #[test]
    fn bytes_are_read_or_refused_and_never_panic(text in "[<>/a-z:&;#! \\[\\]\"'=?-]{0,200}") {
        let _ = read(text.as_bytes());
        let _ = read(operation(&text).as_bytes());
    }

    #[test]
    fn every_text_survives(text in "[^\\x00-\\x08\\x0b\\x0c\\x0e-\\x1f\u{fffe}\u{ffff}]{0,100}") {
        let mut writer = Writer::new("find", 10);
        writer.field("reference", &text);
        let bytes = writer.finish();
        let Ok(Envelope::Message(message)) = read(&bytes) else { panic!("{text:?}") };
        proptest::prop_assert_eq!(message.field("reference"), Some(text.as_str()));
    }
}
