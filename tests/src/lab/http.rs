//! The smallest HTTP client that can hold a connection open and time what happens on it. Where that
//! is not needed, curl is used: a client that others wrote.

use std::{
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context as _, Result};

use super::host::Host;

/// A keep-alive connection.
#[derive(Debug)]
pub struct HttpConnection {
    stream: BufReader<TcpStream>,
}

/// An answer's head, with its body read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// HTTP's status.
    pub status: u16,
    /// Who answered.
    pub target: String,
    /// The body's length.
    pub body_bytes: u64,
}

impl HttpConnection {
    /// Connects from `host`.
    pub fn from(host: &Host, to: SocketAddr, timeout: Duration) -> Result<Self> {
        host.enter(|| Self::here(to, timeout))?
            .with_context(|| format!("connecting to {to}"))
    }

    /// Connects from this thread's network namespace.
    pub fn here(to: SocketAddr, timeout: Duration) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&to, timeout)?;
        stream.set_read_timeout(Some(timeout))?;
        stream.set_write_timeout(Some(timeout))?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream: BufReader::new(stream),
        })
    }

    /// The client's end.
    pub fn local(&self) -> io::Result<SocketAddr> {
        self.stream.get_ref().local_addr()
    }

    /// One request with a small answer.
    pub fn get(&mut self, path: &str) -> io::Result<Answer> {
        self.get_with(path, |_| {})
    }

    /// One request; `progress` is told how much of the body has come, whenever some came.
    pub fn get_with(&mut self, path: &str, mut progress: impl FnMut(u64)) -> io::Result<Answer> {
        let request = format!("GET {path} HTTP/1.1\r\nHost: lab\r\n\r\n");
        self.stream.get_mut().write_all(request.as_bytes())?;
        let (status, target, length) = self.head()?;
        let mut body_bytes = 0;
        let mut buffer = vec![0; 1 << 16];
        while body_bytes < length {
            let left = usize::try_from(length - body_bytes).unwrap_or(usize::MAX);
            let wanted = left.min(buffer.len());
            let count = self.stream.read(&mut buffer[..wanted])?;
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            body_bytes += count as u64;
            progress(body_bytes);
        }
        Ok(Answer {
            status,
            target,
            body_bytes,
        })
    }

    fn head(&mut self) -> io::Result<(u16, String, u64)> {
        let (mut status, mut target, mut length) = (0, String::new(), 0);
        let mut line = String::new();
        for number in 0.. {
            line.clear();
            if self.stream.read_line(&mut line)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let text = line.trim_end();
            if text.is_empty() {
                break;
            }
            if number == 0 {
                let code = text.split(' ').nth(1).and_then(|code| code.parse().ok());
                status = code.ok_or_else(|| io::Error::other(format!("not HTTP: {text}")))?;
            } else if let Some((name, value)) = text.split_once(": ") {
                match name.to_ascii_lowercase().as_str() {
                    "content-length" => length = value.parse().map_err(io::Error::other)?,
                    "x-target" => value.clone_into(&mut target),
                    _ => {}
                }
            }
        }
        Ok((status, target, length))
    }
}
