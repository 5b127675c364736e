//! What a TLS client says first: the server's name and the protocols it offers.
//!
//! RFC 8446, sections 4.1.2 and 5.1 (the hello, and the records that carry it), RFC 6066, section 3
//! (server name), RFC 7301 (ALPN). The hello may be spread over records and may come in any pieces;
//! nothing is said of it until all of it is there. Nothing is decrypted: with Encrypted Client
//! Hello the name is that of the outer hello.

/// First byte of a record that carries a handshake.
const HANDSHAKE: u8 = 22;
/// Every version of TLS begins its record version so.
const MAJOR: u8 = 3;
const RECORD_HEADER_BYTES: usize = 5;
/// Longest plaintext of a record (RFC 8446, section 5.1).
const RECORD_BYTES_MAX: usize = 1 << 14;
const CLIENT_HELLO: u8 = 1;
const HANDSHAKE_HEADER_BYTES: usize = 4;
const RANDOM_BYTES: usize = 32;
const EXTENSION_SERVER_NAME: u16 = 0;
const EXTENSION_ALPN: u16 = 16;
const NAME_TYPE_HOST: u8 = 0;
/// Longest host name.
const NAME_BYTES_MAX: usize = 255;

/// What a whole hello says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClientHello {
    /// The server's name in lower case, without a dot at its end.
    pub server_name: Option<String>,
    /// Protocols offered, the most wanted first.
    pub protocols: Vec<Box<[u8]>>,
}

/// What bytes are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Spoken {
    /// The beginning of a hello, or nothing yet.
    Incomplete,
    /// No hello, whatever follows.
    NotTls,
    /// A hello, all of it there.
    Hello(ClientHello),
}

/// Reads the hello with which `bytes` begin.
#[must_use]
pub fn parse(bytes: &[u8]) -> Spoken {
    match handshake(bytes) {
        Err(Cut::Incomplete) => Spoken::Incomplete,
        Err(Cut::NotTls) => Spoken::NotTls,
        // A hello that contradicts itself is no TLS that any server would speak.
        Ok(message) => hello(&message).map_or(Spoken::NotTls, Spoken::Hello),
    }
}

/// Why there is no whole handshake message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cut {
    Incomplete,
    NotTls,
}

/// The first handshake message, put together from its records, without its header.
fn handshake(bytes: &[u8]) -> Result<Vec<u8>, Cut> {
    let total = message_bytes(bytes)?;
    let mut message = Vec::with_capacity(total);
    for fragment in Records(bytes) {
        let room = total - message.len();
        let fragment = fragment?;
        message.extend_from_slice(fragment.get(..room).unwrap_or(fragment));
        if message.len() == total {
            message.drain(..HANDSHAKE_HEADER_BYTES);
            return Ok(message);
        }
    }
    Err(Cut::Incomplete)
}

/// How long the first message is, with its header; only once all of it is there, so that a hello
/// that comes in pieces is put together once.
fn message_bytes(bytes: &[u8]) -> Result<usize, Cut> {
    let mut start = [0_u8; HANDSHAKE_HEADER_BYTES];
    let (mut known, mut total, mut seen) = (0, None, 0);
    for fragment in Records(bytes) {
        let fragment = fragment?;
        for (place, byte) in start.iter_mut().skip(known).zip(fragment) {
            *place = *byte;
            known += 1;
        }
        if known > 0 && start[0] != CLIENT_HELLO {
            return Err(Cut::NotTls);
        }
        if known == HANDSHAKE_HEADER_BYTES {
            let [_, high, middle, low] = start;
            let body = u32::from_be_bytes([0, high, middle, low]) as usize;
            total = Some(HANDSHAKE_HEADER_BYTES + body);
        }
        seen += fragment.len();
        if let Some(total) = total.filter(|total| seen >= *total) {
            return Ok(total);
        }
    }
    Err(Cut::Incomplete)
}

/// The payloads of records, as far as they are there; an error ends them.
struct Records<'a>(&'a [u8]);

impl<'a> Iterator for Records<'a> {
    type Item = Result<&'a [u8], Cut>;

    fn next(&mut self) -> Option<Self::Item> {
        let bytes = self.0;
        let [kind, rest @ ..] = bytes else { return None };
        let is_handshake = *kind == HANDSHAKE && rest.first().is_none_or(|major| *major == MAJOR);
        if !is_handshake {
            self.0 = &[];
            return Some(Err(Cut::NotTls));
        }
        let &[_, _, _, high, low] = bytes.first_chunk::<RECORD_HEADER_BYTES>()?;
        let length = usize::from(u16::from_be_bytes([high, low]));
        if length == 0 || length > RECORD_BYTES_MAX {
            self.0 = &[];
            return Some(Err(Cut::NotTls));
        }
        let behind = bytes.get(RECORD_HEADER_BYTES..).unwrap_or_default();
        let (payload, rest) = behind.split_at(length.min(behind.len()));
        self.0 = rest;
        (!payload.is_empty()).then_some(Ok(payload))
    }
}

/// Reads the body of a hello; `None` when it does not fit together.
fn hello(body: &[u8]) -> Option<ClientHello> {
    let mut reader = Reader(body);
    reader.take(2 + RANDOM_BYTES)?;
    reader.vector8()?;
    reader.vector16()?;
    reader.vector8()?;
    let mut found = ClientHello::default();
    if reader.0.is_empty() {
        return Some(found);
    }
    let mut extensions = Reader(reader.vector16()?);
    if !reader.0.is_empty() {
        return None;
    }
    let (mut has_name, mut has_protocols) = (false, false);
    while !extensions.0.is_empty() {
        let kind = extensions.number16()?;
        let content = extensions.vector16()?;
        match kind {
            // Twice is forbidden, and which of the two a server reads would be a guess.
            EXTENSION_SERVER_NAME if has_name => return None,
            EXTENSION_SERVER_NAME => {
                has_name = true;
                found.server_name = server_name(content)?;
            }
            EXTENSION_ALPN if has_protocols => return None,
            EXTENSION_ALPN => {
                has_protocols = true;
                found.protocols = protocols(content)?;
            }
            _ => {}
        }
    }
    Some(found)
}

/// The host name of a list; the outer `None` when the list does not fit together.
fn server_name(content: &[u8]) -> Option<Option<String>> {
    let mut reader = Reader(content);
    let mut list = Reader(reader.vector16()?);
    if !reader.0.is_empty() {
        return None;
    }
    let mut found = None;
    while !list.0.is_empty() {
        let kind = list.number8()?;
        let name = list.vector16()?;
        if kind == NAME_TYPE_HOST && found.is_none() {
            found = host_name(name);
        }
    }
    Some(found)
}

/// A name as it is compared; `None` for what no host is called.
fn host_name(bytes: &[u8]) -> Option<String> {
    let bytes = bytes.strip_suffix(b".").unwrap_or(bytes);
    let is_plain = bytes.iter().all(u8::is_ascii_graphic);
    if bytes.is_empty() || bytes.len() > NAME_BYTES_MAX || !is_plain {
        return None;
    }
    String::from_utf8(bytes.to_ascii_lowercase()).ok()
}

fn protocols(content: &[u8]) -> Option<Vec<Box<[u8]>>> {
    let mut reader = Reader(content);
    let mut list = Reader(reader.vector16()?);
    if !reader.0.is_empty() {
        return None;
    }
    let mut found = Vec::new();
    while !list.0.is_empty() {
        found.push(Box::from(list.vector8()?));
    }
    Some(found)
}

/// Takes values off the front of bytes.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn number8(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    fn number16(&mut self) -> Option<u16> {
        self.take(2)?.first_chunk().map(|bytes| u16::from_be_bytes(*bytes))
    }

    fn vector8(&mut self) -> Option<&'a [u8]> {
        let length = self.number8()?;
        self.take(usize::from(length))
    }

    fn vector16(&mut self) -> Option<&'a [u8]> {
        let length = self.number16()?;
        self.take(usize::from(length))
    }
}

#[cfg(test)]
mod tests;
