//! The validity of a certificate, read and put into words.
//!
//! Only the two times are needed here, even of a certificate that no client would trust. The fields
//! before them are skipped, those behind them are not read. A parser of the whole certificate is of
//! less use: `x509-cert` 0.3 refuses one whose serial number is longer than RFC 5280
//! allows, and would add 5 crates to the tree (`x509-parser` 0.18: 23).

use der::asn1::{AnyRef, GeneralizedTime, UtcTime};
use der::{Decode, Reader, SliceReader, Tag, Tagged};
use jiff::Timestamp;

use crate::control::words::count;

/// An end that is nearer than this is logged.
pub(crate) const NEAR_SECONDS: u64 = 14 * DAY;

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// The first and the last second of validity, since the epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Validity {
    pub(crate) not_before: u64,
    pub(crate) not_after: u64,
}

impl Validity {
    /// The validity of a certificate in DER; `None` for other bytes, and for times before 1970.
    pub(crate) fn of(certificate: &[u8]) -> Option<Self> {
        Self::read(certificate).ok()
    }

    /// RFC 5280, section 4.1.
    fn read(certificate: &[u8]) -> der::Result<Self> {
        let mut whole = SliceReader::new(certificate)?;
        let mut certificate = inside(&mut whole)?;
        let mut signed = inside(&mut certificate)?;
        // Certificates of version 1 have no version field.
        if Tag::peek(&signed)?.is_context_specific() {
            AnyRef::decode(&mut signed)?;
        }
        for _number_algorithm_issuer in 0..3 {
            AnyRef::decode(&mut signed)?;
        }
        let mut validity = inside(&mut signed)?;
        Ok(Self { not_before: time(&mut validity)?, not_after: time(&mut validity)? })
    }
}

/// The contents of the next element, a sequence.
fn inside<'a>(reader: &mut SliceReader<'a>) -> der::Result<SliceReader<'a>> {
    let sequence = AnyRef::decode(reader)?;
    sequence.tag().assert_eq(Tag::Sequence)?;
    SliceReader::new(sequence.value())
}

fn time<'a>(reader: &mut impl Reader<'a>) -> der::Result<u64> {
    let since_epoch = match Tag::peek(reader)? {
        Tag::UtcTime => UtcTime::decode(reader)?.to_unix_duration(),
        _ => GeneralizedTime::decode(reader)?.to_unix_duration(),
    };
    Ok(since_epoch.as_secs())
}

/// Whether the end has passed, or is so near that an operator should know.
pub(crate) fn is_near(not_after: u64, now: u64) -> bool {
    not_after < now.saturating_add(NEAR_SECONDS)
}

/// How far away the end is: `expires in 3 days`, `expired 3 days ago`.
pub(crate) fn expiry(not_after: u64, now: u64) -> String {
    if now > not_after {
        format!("expired {} ago", span(now - not_after))
    } else {
        format!("expires in {}", span(not_after - now))
    }
}

/// A time as documents and the log have it. The end of 9999, which stands for "never", is a day
/// early.
pub(crate) fn shown_time(seconds: u64) -> String {
    let time = i64::try_from(seconds).ok().and_then(|time| Timestamp::from_second(time).ok());
    format!("{:.0}", time.unwrap_or(Timestamp::MAX))
}

/// A time in whole units, of which one is enough.
pub(crate) fn span(seconds: u64) -> String {
    match seconds {
        0..MINUTE => count(seconds, "second"),
        MINUTE..HOUR => count(seconds / MINUTE, "minute"),
        HOUR..DAY => count(seconds / HOUR, "hour"),
        _ => count(seconds / DAY, "day"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::Index;
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    fn certificate(from: (i32, u8, u8), to: (i32, u8, u8)) -> Vec<u8> {
        let mut params = CertificateParams::new(vec!["a.test".to_owned()]).unwrap();
        params.not_before = date_time_ymd(from.0, from.1, from.2);
        params.not_after = date_time_ymd(to.0, to.1, to.2);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    // If this fails, expiry is reported wrong, in one of the two forms that dates have.
    #[test]
    fn both_kinds_of_dates_are_read() {
        // From 2050 on they are written with four digits.
        let read = Validity::of(&certificate((2020, 1, 1), (2049, 12, 31)));
        assert_eq!(read, Some(Validity { not_before: 1_577_836_800, not_after: 2_524_521_600 }));
        let read = Validity::of(&certificate((2050, 1, 1), (2100, 1, 1)));
        assert_eq!(read, Some(Validity { not_before: 2_524_608_000, not_after: 4_102_444_800 }));
    }

    // If this fails, a certificate of the first version has no end, or an old one the wrong one.
    #[test]
    fn a_certificate_without_a_version_is_read() {
        let whole = certificate((2020, 1, 1), (2030, 1, 1));
        let version = [0xA0, 3, 2, 1, 2];
        let at = whole.windows(5).position(|window| window == version).unwrap();
        let mut first = whole.clone();
        first.drain(at..at + version.len());
        // Both sequences around it are as much shorter; their lengths have two bytes.
        for length in [2, 6] {
            let bytes: [u8; 2] = first[length..length + 2].try_into().unwrap();
            let shorter = u16::from_be_bytes(bytes) - 5;
            first[length..length + 2].copy_from_slice(&shorter.to_be_bytes());
        }
        assert_eq!(Validity::of(&first), Validity::of(&whole));
    }

    // If this fails, a certificate with a serial number that is too long has no end.
    #[test]
    fn an_odd_serial_number_is_stepped_over() {
        let mut params = CertificateParams::new(vec!["a.test".to_owned()]).unwrap();
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2049, 12, 31);
        params.serial_number = Some(vec![1; 24].into());
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let read = Validity::of(certificate.der());
        assert_eq!(read.map(|read| read.not_after), Some(2_524_521_600));
    }

    // If this fails, an operator reads nonsense about the one date that matters.
    #[test]
    fn the_end_is_said_in_one_unit() {
        let words =
            |left: i64| expiry(1_000_000_000, 1_000_000_000_u64.checked_add_signed(-left).unwrap());
        assert_eq!(words(3 * 86_400 + 5), "expires in 3 days");
        assert_eq!(words(86_400), "expires in 1 day");
        assert_eq!(words(7_199), "expires in 1 hour");
        assert_eq!(words(0), "expires in 0 seconds");
        assert_eq!(words(-1), "expired 1 second ago");
        assert_eq!(words(-120), "expired 2 minutes ago");
        assert!(is_near(1_000, 2_000) && is_near(1_000, 1_000));
        assert!(!is_near(1_000 + NEAR_SECONDS, 1_000));
    }

    proptest! {
        // If this fails, a server can end the process by the bytes of its certificate.
        #[test]
        fn any_bytes_are_survived(
            bytes in proptest::collection::vec(any::<u8>(), 0..64),
            edits in proptest::collection::vec((any::<Index>(), any::<u8>()), 1..8),
        ) {
            Validity::of(&bytes);
            let mut mutated = KNOWN.with(Clone::clone);
            for (at, byte) in edits {
                let at = at.index(mutated.len());
                mutated[at] = byte;
            }
            Validity::of(&mutated);
        }
    }

    thread_local! {
        static KNOWN: Vec<u8> = certificate((2020, 1, 1), (2030, 1, 1));
    }
}
