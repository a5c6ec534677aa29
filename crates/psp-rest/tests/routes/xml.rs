//! XML that means harm, and XML that is none: refused with a 4xx that repeats nothing, at the cost of reading it once.

use std::time::{Duration, Instant};

use axum::http::StatusCode;
use proptest::prelude::*;

use crate::support::{Answer, World};

const MALFORMED: StatusCode = StatusCode::BAD_REQUEST;

async fn post(world: &World, body: impl Into<axum::body::Body>) -> Answer {
    world.send("/deposit", &[("content-type", "application/xml")], body).await
}

/// A deposit with that beside its fields.
fn deposit_with(inside: &str) -> String {
    format!("<deposit><user_id>1</user_id><amount>1</amount><currency>USD</currency>{inside}</deposit>")
}

async fn refuse(body: impl Into<axum::body::Body>, status: StatusCode, what: &str) -> Answer {
    let world = World::new();
    let begun = Instant::now();
    let answer = post(&world, body).await;
    assert_eq!(answer.status, status, "{what}: {}", answer.text);
    assert!(begun.elapsed() < Duration::from_secs(5), "{what}");
    assert!(
        answer.headers["content-type"] == "application/problem+xml" && answer.text.len() < 2_000,
        "{}",
        answer.text
    );
    assert!(world.memory.events().is_empty(), "{what}: nothing was written");
    answer
}

#[tokio::test]
async fn no_file_is_read_for_an_external_entity() {
    let file = tempfile();
    for doctype in [
        format!("<!DOCTYPE deposit [<!ENTITY x SYSTEM \"file://{file}\">]>"),
        format!("<!DOCTYPE deposit [<!ENTITY % x SYSTEM \"file://{file}\"> %x;]>"),
        format!("<!DOCTYPE deposit SYSTEM \"{file}\">"),
        "<!DOCTYPE deposit PUBLIC \"-//W3C//DTD XHTML 1.0//EN\" \"http://127.0.0.1:1/x.dtd\">".to_owned(),
        "<!DOCTYPE deposit>".to_owned(),
        "<!doctype deposit>".to_owned(),
    ] {
        let body = format!("<?xml version=\"1.0\"?>{doctype}{}", deposit_with("<country>&x;</country>"));
        let answer = refuse(body, MALFORMED, &doctype).await;
        assert!(!answer.text.contains("package") && !answer.text.contains("Cargo"), "{}", answer.text);
    }
}

/// A file that this process can read.
fn tempfile() -> String {
    concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml").to_owned()
}

#[tokio::test]
async fn entities_are_not_expanded_so_they_cannot_grow() {
    let laugh = |level: u32| {
        let references = format!("&a{};", level - 1).repeat(10);
        format!("<!ENTITY a{level} \"{references}\">")
    };
    let laughs = (1..20).map(laugh).collect::<Vec<_>>().concat();
    let billion =
        format!("<!DOCTYPE deposit [<!ENTITY a0 \"ha\">{laughs}]>{}", deposit_with("<country>&a19;</country>"));
    refuse(billion, MALFORMED, "billion laughs").await;
    let long = format!("<!DOCTYPE deposit [<!ENTITY a \"{}\">]>", "x".repeat(30_000));
    let quadratic = format!("{long}{}", deposit_with(&format!("<country>{}</country>", "&a;".repeat(9_000))));
    refuse(quadratic, MALFORMED, "quadratic blow-up").await;
    for entity in
        ["&a;", "&nbsp;", "&xxe;", "&#0;", "&#1;", "&#xd800;", "&#x110000;", "&#;", "&;", "&#99999999999;", "& "]
    {
        refuse(deposit_with(&format!("<country>{entity}</country>")), MALFORMED, entity).await;
        refuse(deposit_with(&format!("<country a=\"{entity}\">US</country>")), MALFORMED, entity).await;
    }
}

#[tokio::test]
async fn deep_nesting_and_crowds_of_attributes_are_refused_at_once() {
    for depth in [9, 100, 9_000] {
        let deep = deposit_with(&format!("{}{}", "<a>".repeat(depth), "</a>".repeat(depth)));
        refuse(deep, MALFORMED, "deep").await;
        refuse("<deposit>".repeat(depth.min(7_000)), MALFORMED, "deep and open").await;
    }
    let attributes: Vec<_> = (0..5_000).map(|number| format!(" a{number}=''")).collect();
    let attributes = attributes.concat();
    refuse(deposit_with(&format!("<a{attributes}/>")), MALFORMED, "attributes").await;
    let world = World::new();
    let shallow = deposit_with(&format!("{}{}", "<a>".repeat(6), "</a>".repeat(6)));
    assert_eq!(post(&world, shallow).await.status, StatusCode::ACCEPTED, "what is not known is ignored");
    let many = deposit_with(&"<a/>".repeat(16_000)[..60_000]);
    assert_eq!(post(&world, many).await.status, StatusCode::ACCEPTED);
}

#[tokio::test]
async fn what_comes_again_and_again_is_told_once_and_costs_no_more_than_reading_it() {
    let doubles = |count: usize| format!("<deposit>{}</deposit>", "<amount/>".repeat(count));
    let answer = refuse(doubles(7_200), StatusCode::UNPROCESSABLE_ENTITY, "doubles").await;
    assert_eq!(answer.text.matches("must be given once").count(), 1, "{}", answer.text);
    let text = |doubles: usize, references: usize| {
        format!("<deposit>{}{}</deposit>", "<amount/>".repeat(doubles), "&lt;".repeat(references))
    };
    let answer = refuse(text(3_600, 8_000), StatusCode::UNPROCESSABLE_ENTITY, "doubles and text").await;
    assert_eq!(answer.text.matches("must hold elements and no text").count(), 1, "{}", answer.text);
}

#[tokio::test]
async fn a_body_over_64_kib_is_413() {
    let world = World::new();
    let fill = |length: usize| deposit_with(&" ".repeat(length - deposit_with("").len()));
    assert_eq!(post(&world, fill(psp_rest::MAX_BODY_BYTES)).await.status, StatusCode::ACCEPTED);
    refuse(fill(psp_rest::MAX_BODY_BYTES + 1), StatusCode::PAYLOAD_TOO_LARGE, "large").await;
}

#[tokio::test]
async fn what_is_not_well_formed_is_400() {
    let good = deposit_with("");
    for body in [
        "",
        " ",
        "text",
        "<",
        "<deposit",
        "<deposit>",
        "</deposit>",
        "<deposit></withdrawal>",
        "<deposit/><deposit/>",
        "{}",
        "<deposit><a></b></deposit>",
        "<deposit a=1/>",
        "<deposit a='1' a='2'/>",
        "<deposit a='<'/>",
        "<1a/>",
        "<deposit><!-- -- --></deposit>",
        "<deposit>\u{1}</deposit>",
        "<deposit>\u{ffff}</deposit>",
        "<deposit><![CDATA[</deposit>",
        "<deposit><?x</deposit>",
        " <?xml version=\"1.0\"?><deposit/>",
        "<deposit><?xml version=\"1.0\"?></deposit>",
        "<?xml?><deposit/>",
    ] {
        refuse(body, MALFORMED, body).await;
    }
    refuse(format!("{good}text"), MALFORMED, "text behind").await;
    refuse(format!("text{good}"), MALFORMED, "text before").await;
    refuse(format!("{good}&amp;"), MALFORMED, "reference behind").await;
    refuse(format!("{good}<![CDATA[ ]]>"), MALFORMED, "CDATA behind").await;
    refuse(vec![0xff, 0xfe, b'<', 0], MALFORMED, "UTF-16").await;
    let mut latin = good.clone().into_bytes();
    latin.insert(12, 0xe9);
    refuse(latin, MALFORMED, "Latin 1").await;
    let declared = format!("<?xml version=\"1.0\" encoding=\"ISO-8859-1\"?>{good}");
    refuse(declared, StatusCode::UNSUPPORTED_MEDIA_TYPE, "declared Latin 1").await;
}

#[tokio::test]
async fn rejected_values_are_not_repeated() {
    for field in ["user_id", "amount", "currency", "country", "method", "gateway", "rejected-7351"] {
        let doubled = format!("<{field}>rejected 7351</{field}>").repeat(2);
        let answer = post(&World::new(), format!("<deposit rejected='7351'>{doubled}</deposit>")).await;
        let id = answer.headers["x-request-id"].to_str().unwrap();
        assert!(!answer.text.replace(id, "").contains("7351"), "{}", answer.text);
        assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY);
    }
}

#[tokio::test]
async fn problems_of_the_server_are_xml_too_and_paths_that_speak_none_stay_json() {
    let world = World::new();
    world.failing.fail_next(psp_domain::ports::StoreError::Overloaded, false);
    let answer = post(&world, deposit_with("")).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(
        (&answer.headers["content-type"], &answer.headers["retry-after"]),
        (&"application/problem+xml".parse().unwrap(), &"1".parse().unwrap())
    );
    let wrong_method = world.get_with("/deposit", &[("accept", "application/problem+xml")]).await;
    assert_eq!(wrong_method.status, StatusCode::METHOD_NOT_ALLOWED);
    assert!(wrong_method.text.starts_with("<?xml"), "{}", wrong_method.text);
    for path in ["/nowhere", "/transactions"] {
        let answer = world.get_with(path, &[("accept", "application/xml")]).await;
        assert_eq!(answer.headers["content-type"], "application/problem+json", "{path}");
    }
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn no_bytes_are_a_server_error(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let answer = run(async { post(&World::new(), bytes).await });
        prop_assert!(answer.status.is_client_error(), "{}", answer.status);
    }

    #[test]
    fn no_markup_is_a_server_error(parts in prop::collection::vec(
        prop_oneof![
            Just("<deposit>".to_owned()), Just("</deposit>".to_owned()), Just("<amount>".to_owned()),
            Just("</amount>".to_owned()), Just("<![CDATA[".to_owned()), Just("]]>".to_owned()), Just("<!--".to_owned()),
            Just("-->".to_owned()), Just("&#".to_owned()), Just("&amp;".to_owned()), Just("<?xml ".to_owned()),
            Just("?>".to_owned()), Just("<!DOCTYPE".to_owned()), Just("\"".to_owned()), Just("/>".to_owned()), "\\PC{0,3}",
        ], 0..20,
    )) {
        let answer = run(async { post(&World::new(), parts.concat()).await });
        prop_assert!(!answer.status.is_server_error(), "{}: {}", answer.status, answer.text);
    }

    #[test]
    fn any_text_of_a_field_means_the_same_in_both_formats(user in "[!-~]{1,20}") {
        let escaped = user.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        let xml = format!("<deposit><user_id>{escaped}</user_id><amount>1</amount><currency>USD</currency></deposit>");
        let (status, shown) = run(async {
            let world = World::new();
            let answer = world.send("/deposit", &[("content-type", "text/xml"), ("accept", "application/json")], xml).await;
            let id = answer.json()["transaction_id"].as_str().unwrap().to_owned();
            let found = world.get_with(&format!("/deposits/{id}"), &[]).await;
            (answer.status, found.json()["user_id"].clone())
        });
        prop_assert_eq!((status, shown.as_str()), (StatusCode::ACCEPTED, Some(user.as_str())));
    }
}
