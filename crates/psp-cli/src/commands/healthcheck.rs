use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, ensure};

use crate::settings::Settings;

const TIMEOUT: Duration = Duration::from_secs(3);

/// Asks the process at the configured address whether it is ready, or only whether it answers.
pub(crate) fn run(settings: &Settings, live: bool) -> anyhow::Result<()> {
    let address = settings.admin_listen.unwrap_or(settings.listen);
    let path = if live { "/_liveness_check_" } else { "/_readiness_check_" };
    let well = ask(address, path).with_context(|| format!("no answer from {address}"))?;
    ensure!(well, "not ready");
    Ok(())
}

fn ask(mut address: SocketAddr, path: &str) -> std::io::Result<bool> {
    if address.ip().is_unspecified() {
        address.set_ip(IpAddr::V4(Ipv4Addr::LOCALHOST));
    }
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    write!(stream, "GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")?;
    let mut status = [0; 12];
    stream.read_exact(&mut status)?;
    Ok(status.ends_with(b" 200"))
}
