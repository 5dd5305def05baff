//! Times between the core, which counts milliseconds, and S3, which shows whole seconds in headers.

use std::time::{Duration, SystemTime};

use federation::types::Timestamp;
use s3s::dto;

/// A time as S3 shows it: in whole seconds, in documents as in headers, so that the two compare equal.
pub fn to_s3(time: Timestamp) -> dto::Timestamp {
    dto::Timestamp::from(system(Timestamp(seconds(time) * 1000)))
}

/// A time that a client states.
pub fn from_s3(time: &dto::Timestamp) -> Timestamp {
    let mut text = Vec::new();
    // Formatting into memory fails only for years that no four digits hold; such a time matches nothing.
    let parsed = time.format(dto::TimestampFormat::DateTime, &mut text).ok().and_then(|()| {
        let time: jiff::Timestamp = std::str::from_utf8(&text).ok()?.parse().ok()?;
        u64::try_from(time.as_millisecond()).ok()
    });
    Timestamp(parsed.unwrap_or(0))
}

/// A time as a `Last-Modified` header.
pub fn http_date(time: Timestamp) -> String {
    httpdate::fmt_http_date(system(time))
}

/// The whole second that headers show.
pub fn seconds(time: Timestamp) -> u64 {
    time.0 / 1000
}

/// The last millisecond of the year 9999. Later ones, which only another cluster can have made up, have no HTTP date.
const LAST: u64 = 253_402_300_799_999;

fn system(time: Timestamp) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(time.0.min(LAST))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_lead_back() {
        let time = Timestamp(1_792_576_800_123);
        assert_eq!(from_s3(&to_s3(time)), Timestamp(1_792_576_800_000));
        assert_eq!(http_date(time), "Wed, 21 Oct 2026 10:00:00 GMT");
        assert_eq!(http_date(Timestamp(u64::MAX)), "Fri, 31 Dec 9999 23:59:59 GMT", "no time that is told panics");
        let fine = dto::Timestamp::parse(dto::TimestampFormat::DateTime, "2026-10-21T10:00:00.123Z").unwrap();
        assert_eq!(from_s3(&fine), time);
    }
}
