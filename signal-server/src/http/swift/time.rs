//! The three ways in which Swift writes a time.

use jiff::Timestamp;
use jiff::fmt::strtime;
use jiff::tz::TimeZone;

const MICROSECONDS: i64 = 1_000_000;

/// `Last-Modified`: whole seconds, rounded up as Swift does, so that an object never claims to be older
/// than it is. Heat reads a deployment's object again only when this has grown.
pub(crate) fn http_date(time: Timestamp) -> String {
    let seconds = ceiling_seconds(time);
    let whole = Timestamp::from_second(seconds).unwrap_or(time);
    format("%a, %d %b %Y %H:%M:%S GMT", whole)
}

/// `X-Timestamp`: seconds with five decimals.
pub(crate) fn x_timestamp(time: Timestamp) -> String {
    let microseconds = time.as_microsecond().max(0);
    format!("{}.{:05}", microseconds / MICROSECONDS, microseconds % MICROSECONDS / 10)
}

/// `last_modified` in a listing: UTC without saying so, and always with six decimals.
pub(crate) fn listing_time(time: Timestamp) -> String {
    format("%Y-%m-%dT%H:%M:%S.%6f", time)
}

fn ceiling_seconds(time: Timestamp) -> i64 {
    let microseconds = time.as_microsecond();
    microseconds.div_euclid(MICROSECONDS) + i64::from(microseconds.rem_euclid(MICROSECONDS) > 0)
}

fn format(pattern: &str, time: Timestamp) -> String {
    // Fails only for a pattern that asks for what the time does not have.
    strtime::format(pattern, &time.to_zoned(TimeZone::UTC)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(microseconds: i64, expect: [&str; 3]) {
        let time = Timestamp::from_microsecond(microseconds).expect("in range");
        assert_eq!([http_date(time), x_timestamp(time), listing_time(time)], expect);
    }

    #[test]
    fn times_look_as_swifts_do() {
        check(
            1_795_219_937_680_746,
            ["Sat, 21 Nov 2026 00:12:18 GMT", "1795219937.68074", "2026-11-21T00:12:17.680746"],
        );
        check(
            1_795_219_937_000_000,
            ["Sat, 21 Nov 2026 00:12:17 GMT", "1795219937.00000", "2026-11-21T00:12:17.000000"],
        );
        check(0, ["Thu, 01 Jan 1970 00:00:00 GMT", "0.00000", "1970-01-01T00:00:00.000000"]);
    }
}
