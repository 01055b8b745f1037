//! The way to a project: its URL, its clock, its certificate.

use std::time::Duration;

use http::HeaderMap;
use http::header::DATE;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;

use super::answer;
use crate::checks::doctor::finding::Finding;
use crate::checks::http::{Answer, NoAnswer};
use crate::forward::error::{ConnectError, ForwardError};
use crate::side::Side;

/// Tokens that are signed here are refused there when they begin later than this (`PostgREST` 2.7: 30 s of skew).
const FATAL_SKEW: i64 = 30;
/// A clock that is kept by NTP is not off by so much.
const SUSPECT_SKEW: i64 = 2;
/// What is left of a certificate when somebody should know.
const FORTNIGHT: Duration = Duration::from_secs(14 * 24 * 3600);

/// Whether the project answers. Any answer will do, but a redirection: nothing here or in the proxy follows one.
pub(crate) fn url(side: Side, url: &str, asked: &Result<Answer, NoAnswer>) -> Finding {
    const ID: &str = "reach.url";
    let key = format!("projects.{side}.url");
    match asked {
        Ok(answer) if answer.status.is_redirection() => {
            let to = answer::location(answer);
            let seen = format!("answers {} with a redirection to {to}", answer.status.as_u16());
            Finding::fail(
                ID,
                side,
                url,
                seen,
                format!("set {key} to where it leads: the proxy follows no redirection"),
            )
        }
        Ok(answer) if answer.status.is_server_error() => {
            let seen = format!("answers {}", answer::said_by(answer));
            let fix = "look at the project's status in the dashboard: is it paused, or restarting?";
            Finding::fail(ID, side, url, seen, fix)
        }
        Ok(_) => Finding::pass(ID, side, url, "answers"),
        Err(none) => {
            let hint = match none {
                NoAnswer::Forward(ForwardError::Connect(error)) => unreachable(error),
                _ => "is something else listening there, or a firewall between?",
            };
            Finding::fail(ID, side, url, none.to_string(), format!("check {key}: {hint}"))
        }
    }
}

fn unreachable(error: &ConnectError) -> &'static str {
    match error {
        ConnectError::Io(error) => match error.kind() {
            std::io::ErrorKind::ConnectionRefused => "nothing listens at that address and port",
            std::io::ErrorKind::InvalidData => {
                "its certificate is not believed; with a private CA set projects.*.ca, and the name in it must be the URL's or projects.*.host"
            }
            _ => {
                "does the name exist (a deleted or renamed project has none), and does a network lead there?"
            }
        },
        ConnectError::Timeout => {
            "nothing answers at that address: a firewall, a wrong port, or upstream.connect_timeout is too short"
        }
        ConnectError::Tls(_) => "TLS can't be set up: check projects.*.ca and projects.*.host",
        ConnectError::Handshake(_) => "what listens there speaks no HTTP",
    }
}

/// How far the project's clock is from ours. `before` and `after` are our own around the answer, in seconds since 1970.
pub(crate) fn clock(side: Side, headers: &HeaderMap, before: i64, after: i64) -> Finding {
    const ID: &str = "reach.clock";
    let date = headers.get(DATE).and_then(|value| value.to_str().ok());
    let Some(theirs) = date.and_then(seconds) else {
        let seen = "the answer has no Date";
        return Finding::skip(ID, side, "clock", seen, "compare the clocks by hand");
    };
    // A Date has whole seconds, and was written between the two.
    let skew = if theirs < before - 1 {
        theirs - before
    } else if theirs > after {
        theirs - after
    } else {
        0
    };
    let seen = match skew {
        0 => "the clocks agree".to_owned(),
        ahead if ahead > 0 => format!("its clock is {ahead} s ahead of ours"),
        behind => format!("its clock is {} s behind ours", -behind),
    };
    let fix = "set both by NTP: a token signed here and now begins too late, or has ended, for a clock that is off by more than 30 s";
    match skew.abs() {
        skew if skew > FATAL_SKEW => Finding::fail(ID, side, "clock", seen, fix),
        skew if skew > SUSPECT_SKEW => Finding::warn(ID, side, "clock", seen, fix),
        _ => Finding::pass(ID, side, "clock", seen),
    }
}

/// An HTTP date (RFC 9110 5.6.7) in seconds since 1970.
fn seconds(date: &str) -> Option<i64> {
    let date = date.replace("GMT", "+0000");
    OffsetDateTime::parse(&date, &Rfc2822).ok().map(OffsetDateTime::unix_timestamp)
}

/// Whether a certificate lasts. `end` in seconds since 1970; `None`: it could not be read.
pub(crate) fn certificate(side: Side, host: &str, end: Option<i64>, now: i64) -> Finding {
    const ID: &str = "reach.certificate";
    let Some(end) = end else {
        return Finding::skip(
            ID,
            side,
            host,
            "its certificate's end can't be read",
            "look at it with openssl s_client",
        );
    };
    let left = end - now;
    let days = left / (24 * 3600);
    let fix = "renew it: on a custom domain see that the CNAME and the CAA record still allow it";
    if left <= 0 {
        return Finding::fail(ID, side, host, "its certificate has expired", fix);
    }
    if left < i64::try_from(FORTNIGHT.as_secs()).unwrap_or(i64::MAX) {
        return Finding::warn(ID, side, host, format!("its certificate ends in {days} days"), fix);
    }
    Finding::pass(ID, side, host, format!("its certificate lasts {days} days"))
}

/// When a certificate ends, in seconds since 1970: `notAfter` of RFC 5280 4.1, read from DER without a library for the rest of it.
pub(crate) fn not_after(der: &[u8]) -> Option<i64> {
    const SEQUENCE: u8 = 0x30;
    const VERSION: u8 = 0xa0;
    let (_, certificate, _) = element(der).filter(|(tag, ..)| *tag == SEQUENCE)?;
    let (_, mut rest, _) = element(certificate).filter(|(tag, ..)| *tag == SEQUENCE)?;
    if rest.first() == Some(&VERSION) {
        rest = element(rest)?.2;
    }
    // Serial number, algorithm, issuer.
    for _ in 0..3 {
        rest = element(rest)?.2;
    }
    let (_, validity, _) = element(rest)?;
    let (_, _, rest) = element(validity)?;
    let (tag, end, _) = element(rest)?;
    utc(tag, std::str::from_utf8(end).ok()?)
}

/// Tag, contents and what follows.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = bytes.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = if first < 0x80 {
        (usize::from(first), rest)
    } else {
        let count = usize::from(first & 0x7f);
        if count == 0 || count > 4 {
            return None;
        }
        let (length, rest) = rest.split_at_checked(count)?;
        (length.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)), rest)
    };
    let (contents, rest) = rest.split_at_checked(length)?;
    Some((tag, contents, rest))
}

/// `YYMMDDHHMMSSZ` (tag 0x17, of 1950 to 2049) or `YYYYMMDDHHMMSSZ` (0x18).
fn utc(tag: u8, text: &str) -> Option<i64> {
    let text = match tag {
        0x17 => format!("{}{text}", if text < "50" { "20" } else { "19" }),
        0x18 => text.to_owned(),
        _ => return None,
    };
    let format = time::macros::format_description!("[year][month][day][hour][minute][second]Z");
    Some(time::PrimitiveDateTime::parse(&text, format).ok()?.assume_utc().unix_timestamp())
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::super::answer::tests::answered;
    use super::*;
    use crate::checks::doctor::finding::Status;

    fn dated(date: &str) -> HeaderMap {
        HeaderMap::from_iter([(DATE, date.parse().unwrap())])
    }

    #[test]
    fn skew_is_measured_against_the_whole_time_of_the_answer() {
        // Sat, 21 Nov 2026 17:00:00 GMT
        let at = 1_795_280_400;
        for (before, after, want, word) in [
            (at, at, Status::Pass, "agree"),
            (at - 20, at + 20, Status::Pass, "agree"),
            (at + 1, at + 1, Status::Pass, "agree"),
            (at - 3, at - 3, Status::Warn, "3 s ahead"),
            (at + 4, at + 5, Status::Warn, "4 s behind"),
            (at + 30, at + 30, Status::Warn, "30 s behind"),
            (at + 31, at + 31, Status::Fail, "31 s behind"),
            (at - 3600, at - 3600, Status::Fail, "3600 s ahead"),
        ] {
            let found = clock(Side::New, &dated("Sat, 21 Nov 2026 17:00:00 GMT"), before, after);
            assert_eq!(found.status, want, "{before} {after}: {}", found.seen);
            assert!(found.seen.contains(word), "{}", found.seen);
        }
        for headers in [HeaderMap::new(), dated("yesterday")] {
            assert_eq!(clock(Side::New, &headers, at, at).status, Status::Skip);
        }
    }

    #[test]
    fn any_answer_but_a_redirection_or_a_failing_gateway_is_one() {
        for (status, want) in [
            (200, Status::Pass),
            (401, Status::Pass),
            (404, Status::Pass),
            (521, Status::Fail),
            (301, Status::Fail),
        ] {
            let found = url(Side::Old, "https://x", &Ok(answered(status, "")));
            assert_eq!(found.status, want, "{status}");
        }
        assert!(StatusCode::from_u16(521).is_ok());
        let late = url(Side::Old, "https://x", &Err(NoAnswer::Late(Duration::from_secs(3))));
        assert_eq!(late.status, Status::Fail);
        assert!(late.fix.contains("projects.old.url"));
    }

    #[test]
    fn a_certificates_end_is_read_from_its_bytes() {
        let mut parameters = rcgen::CertificateParams::new(vec!["x.example".to_owned()]).unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        for (end, tag) in [
            (time::macros::datetime!(2027-03-04 05:06:07 UTC), "UTCTime"),
            (time::macros::datetime!(2050-03-04 05:06:07 UTC), "GeneralizedTime"),
        ] {
            parameters.not_after = end;
            let der = parameters.self_signed(&key).unwrap().der().to_vec();
            assert_eq!(not_after(&der), Some(end.unix_timestamp()), "{tag}");
            for cut in 0..200.min(der.len()) {
                assert_eq!(not_after(&der[..cut]), None);
            }
        }
    }

    #[test]
    fn a_certificate_is_told_of_a_fortnight_before_its_end() {
        const DAY: i64 = 24 * 3600;
        for (left, want) in [
            (-1, Status::Fail),
            (0, Status::Fail),
            (DAY, Status::Warn),
            (14 * DAY - 1, Status::Warn),
            (14 * DAY, Status::Pass),
        ] {
            assert_eq!(certificate(Side::New, "x", Some(1000 + left), 1000).status, want, "{left}");
        }
        assert_eq!(certificate(Side::New, "x", None, 0).status, Status::Skip);
    }
}
