//! One header or one cookie of an HTTP/1 request, read from the request's first bytes.
//!
//! RFC 9112, sections 2 to 5, and RFC 6265, section 4.2. Only as much as a stable choice of a
//! backend needs: nothing is validated that does not matter for it, nothing is altered, and the
//! server that gets the bytes is the judge of the request. HTTP/2 has no such header.

/// Longest method that is waited for; the longest that is registered with IANA has 17 letters.
pub(crate) const METHOD_BYTES_MAX: usize = 24;

/// What is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeadField<'a> {
    /// The value of a header, whose name has no case.
    Header(&'a str),
    /// The value of a cookie, whose name has.
    Cookie(&'a str),
}

/// What was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found<'a> {
    /// Not there yet, and may still come.
    Incomplete,
    /// Not in this request, or this is no request.
    Absent,
    /// The first value, without white space around it; not empty.
    Value(&'a [u8]),
}

/// Looks for one value in the request with which `bytes` begin.
#[must_use]
pub fn find<'a>(bytes: &'a [u8], wanted: HeadField<'_>) -> Found<'a> {
    // Empty lines before the request are to be ignored (RFC 9112, section 2.2).
    let start = bytes.iter().position(|byte| !matches!(byte, b'\r' | b'\n'));
    let Some(request) = start.and_then(|start| bytes.get(start..)) else {
        return Found::Incomplete;
    };
    if !may_be_request(request) {
        return Found::Absent;
    }
    let mut lines = request.split_inclusive(|byte| *byte == b'\n').skip(1);
    loop {
        let Some(line) = lines.next().and_then(|line| line.strip_suffix(b"\n")) else {
            return Found::Incomplete;
        };
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            return Found::Absent;
        }
        if let Some(value) = value_in(line, wanted) {
            return Found::Value(value);
        }
    }
}

/// Whether the bytes begin with a method and a space, or could still do so.
fn may_be_request(bytes: &[u8]) -> bool {
    match bytes.iter().position(|byte| !is_token(*byte)) {
        Some(end) => (1..=METHOD_BYTES_MAX).contains(&end) && bytes.get(end) == Some(&b' '),
        None => bytes.len() <= METHOD_BYTES_MAX,
    }
}

/// A letter of a method (RFC 9110, section 5.6.2).
pub(crate) fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn value_in<'a>(line: &'a [u8], wanted: HeadField<'_>) -> Option<&'a [u8]> {
    let colon = line.iter().position(|byte| *byte == b':')?;
    let (name, value) = (line.get(..colon)?, line.get(colon + 1..)?);
    let found = match wanted {
        HeadField::Header(header) if name.eq_ignore_ascii_case(header.as_bytes()) => value,
        HeadField::Cookie(cookie) if name.eq_ignore_ascii_case(b"cookie") => {
            let pairs = value.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
            let mut values =
                pairs.filter_map(|pair| pair.strip_prefix(cookie.as_bytes())?.strip_prefix(b"="));
            values.find(|value| !value.is_empty())?
        }
        _ => return None,
    };
    let found = found.trim_ascii();
    (!found.is_empty()).then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const REQUEST: &[u8] =
        b"\r\nGET /a:b HTTP/1.1\r\nHost: x\r\nX-Userid: no\r\nx-USER:  anna \t\r\n\
        Cookie: a=1; session=; xsession=2;session=s-7; b=3\r\nX-User: later\r\n\r\nX-Late: 1\r\n";

    #[test]
    fn headers_and_cookies_are_found() {
        // If this fails, users change their server from one connection to the next.
        let header = |name| find(REQUEST, HeadField::Header(name));
        assert_eq!(header("X-User"), Found::Value(b"anna"));
        assert_eq!(header("host"), Found::Value(b"x"));
        assert_eq!(header("X-Late"), Found::Absent, "that is in the body");
        assert_eq!(header("GET /a"), Found::Absent, "that is the request line");
        let cookie = |name| find(REQUEST, HeadField::Cookie(name));
        assert_eq!(cookie("session"), Found::Value(b"s-7"));
        assert_eq!(cookie("Session"), Found::Absent);
        assert_eq!(cookie("a"), Found::Value(b"1"));
    }

    #[test]
    fn lines_may_end_in_lf_alone() {
        // If this fails, simple clients are waited for until the timeout.
        let bytes = b"GET / HTTP/1.0\nA: b\n\n";
        assert_eq!(find(bytes, HeadField::Header("a")), Found::Value(b"b"));
        assert_eq!(find(bytes, HeadField::Header("c")), Found::Absent);
    }

    #[test]
    fn what_is_no_request_is_known_at_once() {
        // If this fails, clients of other protocols wait for nothing.
        let others: [&[u8]; 4] = [&[22, 3, 1], b"\0", b" GET", b"GET\tx"];
        for bytes in others {
            assert_eq!(find(bytes, HeadField::Header("a")), Found::Absent, "{bytes:?}");
        }
        let long = [b'A'; METHOD_BYTES_MAX + 1];
        assert_eq!(find(&long, HeadField::Header("a")), Found::Absent);
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
        assert_eq!(find(preface, HeadField::Header("a")), Found::Absent);
    }

    proptest! {
        #[test]
        fn what_was_found_stays_found(
            junk in "[ -~\r\n]{0,80}", position: prop::sample::Index, is_cookie: bool
        ) {
            // If this fails, a choice depends on how the network cuts a request.
            let at = position.index(REQUEST.len());
            let bytes = [&REQUEST[..at], junk.as_bytes(), &REQUEST[at..]].concat();
            let wanted =
                if is_cookie { HeadField::Cookie("session") } else { HeadField::Header("X-User") };
            let whole = find(&bytes, wanted);
            for cut in 0..bytes.len() {
                let early = find(&bytes[..cut], wanted);
                prop_assert!(early == Found::Incomplete || early == whole, "cut at {}", cut);
            }
        }

        #[test]
        fn no_bytes_panic(bytes: Vec<u8>, name in "[!-~]{1,8}") {
            // If this fails, a client ends the process.
            let _any = find(&bytes, HeadField::Header(&name));
            let _any = find(&bytes, HeadField::Cookie(&name));
        }
    }
}
