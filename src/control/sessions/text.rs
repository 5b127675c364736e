//! The list of sessions for a person.

use std::time::Duration;

use bytesize::ByteSize;

use crate::config::units::show_duration;
use crate::control::sessions::document::{SessionRow, SessionsPage};
use crate::control::tell::status::table::{Cell, StatusTable};

/// Shows a list.
#[must_use]
pub fn render(page: &SessionsPage, colour: bool) -> String {
    let mut table = StatusTable::new(&[
        "ID",
        "LISTENER",
        "BACKEND",
        "CLIENT",
        "AT",
        "FROM",
        "TO",
        "STAGE",
        ">AGE",
        ">IDLE",
        ">TO BACKEND",
        ">TO CLIENT",
        ">BYTES/S",
    ]);
    for session in &page.sessions {
        table.add(row(session));
    }
    table.show(colour)
}

fn row(session: &SessionRow) -> Vec<Cell> {
    let SessionRow { client, client_peer, pool, backend, .. } = session;
    // A proxy in front is named beside the client that it names.
    let client = match client_peer {
        Some(peer) if peer != client => format!("{client} (by {peer})"),
        _ => client.clone(),
    };
    let or_dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    let backend = match (pool, backend) {
        (Some(pool), Some(backend)) => format!("{pool}/{backend}"),
        (pool, _) => or_dash(pool),
    };
    let bytes = |count: u64| Cell::plain(ByteSize::b(count).display().iec());
    vec![
        Cell::plain(session.id),
        Cell::plain(&session.listener),
        Cell::plain(backend),
        Cell::plain(client),
        Cell::plain(or_dash(&session.client_local)),
        Cell::plain(or_dash(&session.backend_local)),
        Cell::plain(or_dash(&session.backend_peer)),
        Cell::plain(&session.stage),
        Cell::plain(time(session.age_ms)),
        Cell::plain(time(session.idle_ms)),
        bytes(session.bytes_to_backend),
        bytes(session.bytes_to_client),
        session.bytes_per_second.map_or_else(|| Cell::plain("-"), bytes),
    ]
}

/// A time in its one or two largest units: milliseconds do not matter in an hour.
fn time(ms: u64) -> String {
    let whole = |unit_ms: u64| ms / unit_ms * unit_ms;
    let kept = match ms {
        0..1_000 => ms,
        1_000..3_600_000 => whole(1_000),
        3_600_000..86_400_000 => whole(60_000),
        _ => whole(3_600_000),
    };
    show_duration(Duration::from_millis(kept))
}

#[cfg(test)]
mod tests {
    use super::*;

    // If this fails, an operator does not see which proxy brings a client, or takes milliseconds
    // for what matters.
    #[test]
    fn a_session_is_one_line() {
        let session = SessionRow {
            id: 7,
            listener: "web".into(),
            pool: Some("app".into()),
            backend: Some("b1".into()),
            stage: "moving".into(),
            client: "192.0.2.7:4711".into(),
            client_peer: Some("10.0.0.1:5000".into()),
            age_ms: 3_723_004,
            idle_ms: 12,
            bytes_to_backend: 2048,
            ..SessionRow::default()
        };
        let page = SessionsPage { total: 1, sessions: vec![session], next: None };
        let shown = render(&page, false);
        let line = shown.lines().nth(1).unwrap();
        let words: Vec<&str> = line.split_whitespace().collect();
        let expected = "7 web app/b1 192.0.2.7:4711 (by 10.0.0.1:5000) - - - moving 1h 2m 12ms \
                        2.0 KiB 0 B -";
        assert_eq!(words.join(" "), expected);
    }
}
