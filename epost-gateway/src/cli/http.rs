//! Just enough HTTP to read a status page of our own: one GET, version 1.0, bounded in time and size.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// The largest answer read.
const ANSWER_BYTES_MAX: u64 = 4 << 20;

/// How long all of it may take.
const TIME_MAX: Duration = Duration::from_secs(3);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// Nobody listens.
    #[error("not running")]
    NotRunning,
    /// The connection broke, or could not be made for another reason.
    #[error("unreachable ({0})")]
    Unreachable(io::Error),
    /// It took too long.
    #[error("no answer in {} s", TIME_MAX.as_secs())]
    Slow,
    /// Not an HTTP answer with status 200.
    #[error("not the answer of a node")]
    NotAnAnswer,
}

/// The body of `path` at `address`.
pub async fn get(address: SocketAddr, path: &str) -> Result<Vec<u8>, FetchError> {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await?;
        let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\nAccept: application/json\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).await?;
        Ok(answer)
    };
    let answer = timeout(TIME_MAX, exchange).await.map_err(|_| FetchError::Slow)?.map_err(unreachable)?;
    body(&answer).map(<[u8]>::to_vec).ok_or(FetchError::NotAnAnswer)
}

fn unreachable(error: io::Error) -> FetchError {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => FetchError::NotRunning,
        _ => FetchError::Unreachable(error),
    }
}

fn body(answer: &[u8]) -> Option<&[u8]> {
    let status = answer.split(|&byte| byte == b'\r').next()?;
    let mut words = status.split(|&byte| byte == b' ');
    let is_good = words.next()?.starts_with(b"HTTP/1.") && words.next()? == b"200";
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n")?;
    is_good.then_some(&answer[end + 4..])
}

#[cfg(test)]
mod tests {
    //! Goal: the body of a good answer, and nothing of a bad one. Method: by hand.
    use super::body;

    #[test]
    fn bodies() {
        assert_eq!(body(b"HTTP/1.0 200 OK\r\ncontent-type: x\r\n\r\n{}"), Some(&b"{}"[..]));
        assert_eq!(body(b"HTTP/1.1 200\r\n\r\n"), Some(&b""[..]));
        for bad in [&b""[..], b"HTTP/1.0 404 No\r\n\r\n{}", b"220 smtp\r\n\r\n", b"HTTP/1.0 200 OK\r\n"] {
            assert_eq!(body(bad), None);
        }
    }
}
