//! Any bytes as what a client says first: a PROXY header, a TLS hello, an HTTP request. Each parser
//! gives an answer, and one that more bytes do not change: else where the network cuts a stream
//! would decide who a client is and where it goes.

#![no_main]

use evenkeel::policy::first_bytes::client_hello::{self, Spoken};
use evenkeel::policy::first_bytes::proxy_header;
use evenkeel::policy::first_bytes::request_head::{self, Found, HeadField};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let header = proxy_header::parse(bytes);
    if let Ok(Some(header)) = &header {
        assert!(header.length <= bytes.len(), "longer than what is there");
    }
    let spoken = client_hello::parse(bytes);
    let wanted = [HeadField::Header("x-user"), HeadField::Cookie("session")];
    let found = wanted.map(|wanted| request_head::find(bytes, wanted));
    for cut in 0..bytes.len().min(600) {
        let early = &bytes[..cut];
        match proxy_header::parse(early) {
            Ok(None) => {}
            answer => assert_eq!(answer, header, "a header cut at {cut}"),
        }
        match client_hello::parse(early) {
            Spoken::Incomplete => {}
            answer => assert_eq!(answer, spoken, "a hello cut at {cut}"),
        }
        for (wanted, found) in wanted.into_iter().zip(found) {
            match request_head::find(early, wanted) {
                Found::Incomplete => {}
                answer => assert_eq!(answer, found, "a request cut at {cut}"),
            }
        }
    }
});
