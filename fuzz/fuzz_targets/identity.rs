//! Any bytes as what a client says first: a PROXY header, a TLS hello, an HTTP request, an MQTT or
//! RDP connection request. Each parser gives an answer, and one that more bytes do not change: else
//! where the network cuts a stream would decide a client's address and pool.

#![no_main]

use evenkeel::policy::first_bytes::client_hello::{self, Spoken};
use evenkeel::policy::first_bytes::postgres::{self, AskedFor};
use evenkeel::policy::first_bytes::request_head::{self, Found, HeadField};
use evenkeel::policy::first_bytes::{mqtt, proxy_header, rdp};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let header = proxy_header::parse(bytes);
    if let Ok(Some(header)) = &header {
        assert!(header.length <= bytes.len(), "longer than what is there");
    }
    let spoken = client_hello::parse(bytes);
    let wanted = [HeadField::Header("x-user"), HeadField::Cookie("session")];
    let found = wanted.map(|wanted| request_head::find(bytes, wanted));
    let named: [fn(&[u8]) -> Found<'_>; 2] = [mqtt::find, rdp::find];
    let names = named.map(|find| find(bytes));
    let asked = postgres::asked(bytes);
    for cut in 0..bytes.len().min(600) {
        let early = &bytes[..cut];
        match proxy_header::parse(early) {
            Ok(None) => {}
            answer => assert_eq!(answer, header, "a header cut at {cut}"),
        }
        match postgres::asked(early) {
            AskedFor::Incomplete => {}
            answer => assert_eq!(answer, asked, "a request cut at {cut}"),
        }
        match client_hello::parse(early) {
            Spoken::Incomplete => {}
            answer => assert_eq!(answer, spoken, "a hello cut at {cut}"),
        }
        for (find, name) in named.into_iter().zip(names) {
            match find(early) {
                Found::Incomplete => {}
                answer => assert_eq!(answer, name, "a name cut at {cut}"),
            }
        }
        for (wanted, found) in wanted.into_iter().zip(found) {
            match request_head::find(early, wanted) {
                Found::Incomplete => {}
                answer => assert_eq!(answer, found, "a request cut at {cut}"),
            }
        }
    }
});
