//! The share of users on the new side, and the number of a user within all: both out of 10,000.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

/// A percentage from 0 to 100 with at most two decimals, kept in hundredths so that it is exact.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Percentage(u16);

/// Why a text is no percentage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a number from 0 to 100 with at most two decimals")]
pub struct NotAPercentage;

impl Percentage {
    /// Nobody is on the new side.
    pub const ZERO: Self = Self(0);
    /// Everybody is on the new side.
    pub const HUNDRED: Self = Self(10_000);

    /// Makes a percentage of hundredths, 0 to 10,000; anything above is `None`.
    #[must_use]
    pub const fn from_hundredths(hundredths: u16) -> Option<Self> {
        if hundredths <= 10_000 { Some(Self(hundredths)) } else { None }
    }

    /// Makes a percentage of a whole number, 0 to 100; anything above is `None`.
    #[must_use]
    pub const fn from_whole(whole: u8) -> Option<Self> {
        Self::from_hundredths(whole as u16 * 100)
    }

    /// The percentage times 100: a bucket below it is on the new side.
    #[must_use]
    pub const fn hundredths(self) -> u16 {
        self.0
    }

    /// Whether there are no decimals (`hash = "md5"` accepts no others).
    #[must_use]
    pub const fn is_whole(self) -> bool {
        self.0.is_multiple_of(100)
    }

    /// Makes a percentage of a float, as JSON and TOML deliver numbers. NaN, infinities, anything outside
    /// 0 to 100 and anything with more than two decimals is refused.
    ///
    /// # Errors
    /// [`NotAPercentage`] for all of those.
    pub fn from_f64(number: f64) -> Result<Self, NotAPercentage> {
        // The shortest text that reads back as the same float is what the operator wrote.
        number.to_string().parse()
    }
}

impl FromStr for Percentage {
    type Err = NotAPercentage;

    /// Reads plain decimal notation: `10`, `0.5`, `12.25`. No sign, no exponent, no `%`, no spaces inside;
    /// white space around it (the newline at the end of a mounted file) is ignored.
    fn from_str(text: &str) -> Result<Self, NotAPercentage> {
        let text = text.trim_ascii();
        let (whole, decimals) = text.split_once('.').unwrap_or((text, "0"));
        let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        let decimals = match decimals.trim_end_matches('0') {
            "" if digits(decimals) => "0",
            trimmed => trimmed,
        };
        if !digits(whole) || !digits(decimals) || decimals.len() > 2 || whole.len() > 4 {
            return Err(NotAPercentage);
        }
        let whole: u16 = whole.parse().map_err(|_| NotAPercentage)?;
        let mut hundredths: u16 = decimals.parse().map_err(|_| NotAPercentage)?;
        if decimals.len() == 1 {
            hundredths *= 10;
        }
        let total =
            whole.checked_mul(100).and_then(|w| w.checked_add(hundredths)).ok_or(NotAPercentage)?;
        Self::from_hundredths(total).ok_or(NotAPercentage)
    }
}

impl fmt::Display for Percentage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, rest) = (self.0 / 100, self.0 % 100);
        match (rest, rest.is_multiple_of(10)) {
            (0, _) => write!(f, "{whole}"),
            (_, true) => write!(f, "{whole}.{}", rest / 10),
            (_, false) => write!(f, "{whole}.{rest:02}"),
        }
    }
}

impl Serialize for Percentage {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.is_whole() {
            serializer.serialize_u16(self.0 / 100)
        } else {
            serializer.serialize_f64(f64::from(self.0) / 100.0)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_shows_exactly() {
        for (text, hundredths, shown) in [
            ("0", 0, "0"),
            ("100", 10_000, "100"),
            ("0.5", 50, "0.5"),
            ("12.25", 1225, "12.25"),
            ("7.05", 705, "7.05"),
            ("10\n", 1000, "10"),
            ("10.00", 1000, "10"),
            ("10.500", 1050, "10.5"),
            ("007", 700, "7"),
        ] {
            let read: Percentage = text.parse().unwrap();
            assert_eq!(
                (read.hundredths(), read.to_string().as_str()),
                (hundredths, shown),
                "{text}"
            );
        }
    }

    #[test]
    fn refuses_everything_else() {
        for text in [
            "", " ", "abc", "-1", "101", "100.01", "NaN", "inf", "1e1", "+1", "10%", "1 0", ".5",
            "5.", "0.001", "١", "99999",
        ] {
            assert_eq!(text.parse::<Percentage>(), Err(NotAPercentage), "{text:?}");
        }
        for number in [f64::NAN, f64::INFINITY, -0.5, 100.5, 0.001] {
            assert_eq!(Percentage::from_f64(number), Err(NotAPercentage), "{number}");
        }
        assert_eq!(Percentage::from_f64(33.33).unwrap().hundredths(), 3333);
    }
}
