//! A keep-alive HTTP/1.1 client that costs little: the load generator shares the machine with what it measures.

use anyhow::{Context, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The largest answer.
const MAX_ANSWER: usize = 256 * 1024;

pub(crate) struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Client {
    pub(crate) async fn connect(address: &str) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: vec![0; MAX_ANSWER] })
    }

    /// Sends a whole request and reads a whole answer: its status and body.
    pub(crate) async fn ask(&mut self, request: &[u8]) -> anyhow::Result<(u16, &[u8])> {
        self.stream.write_all(request).await?;
        let (mut filled, mut head) = (0, None);
        loop {
            let read = self.stream.read(&mut self.buffer[filled..]).await?;
            if read == 0 {
                bail!("the connection was closed");
            }
            filled += read;
            if head.is_none() {
                head = parse_head(&self.buffer[..filled])?;
            }
            if let Some((status, start, length)) = head
                && filled >= start + length
            {
                return Ok((status, &self.buffer[start..start + length]));
            }
        }
    }
}

/// Status, start of the body and its length, once the head is there.
fn parse_head(bytes: &[u8]) -> anyhow::Result<Option<(u16, usize, usize)>> {
    let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { return Ok(None) };
    let head = std::str::from_utf8(&bytes[..end])?;
    let status = head.get(9..12).context("no status")?.parse()?;
    let is_length = |name: &str| name.eq_ignore_ascii_case("content-length");
    let length = head.lines().find_map(|line| line.split_once(": ").filter(|(name, _)| is_length(name)));
    Ok(Some((status, end + 4, length.context("no length")?.1.parse()?)))
}

/// Where the number of a payment stands in its description: `Lightsaber 00000000`.
const DIGITS: usize = 8;

/// A payment's request, built once; only its number changes, so that no two bodies are the same.
pub(crate) struct Payment {
    bytes: Vec<u8>,
    digits: std::ops::Range<usize>,
}

impl Payment {
    pub(crate) fn of(customer: &str) -> Self {
        let body = r#"{"description":"Lightsaber 00000000","amount":"2500","payment_method":"credit_card","card_number":"4111111111111111","card_holder_name":"Luke Skywalker","card_expiration_date":"10/25","card_verification_code":"123"}"#;
        let head = format!(
            "POST /transactions HTTP/1.1\r\nhost: psp\r\nx-customer-id: {customer}\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n",
            body.len()
        );
        let first = head.len() + r#"{"description":"Lightsaber "#.len();
        Self { bytes: format!("{head}{body}").into_bytes(), digits: first..first + DIGITS }
    }

    /// The request of the next payment.
    pub(crate) fn next(&mut self) -> &[u8] {
        for digit in self.bytes[self.digits.clone()].iter_mut().rev() {
            if *digit < b'9' {
                *digit += 1;
                break;
            }
            *digit = b'0';
        }
        &self.bytes
    }
}

pub(crate) fn get(path: &str, customer: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nhost: psp\r\nx-customer-id: {customer}\r\n\r\n").into_bytes()
}
