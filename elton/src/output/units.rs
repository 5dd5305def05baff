//! Sizes and durations as people write and read them.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::Deserialize;

/// A number of bytes: `64MiB`, `1GiB`, `10GB`, `4096`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

/// A time span: `24h`, `30s`, `15m`, `7d`, `500ms`, `1h30m`, `0`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TimeSpan(pub Duration);

/// Why a text is no size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a size is a number with B, KiB, MiB, GiB, TiB (or KB, MB, GB, TB) behind it, such as 64MiB")]
pub struct InvalidSize;

/// Why a text is no time span.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a time span is numbers with ms, s, m, h or d behind them, such as 24h or 1h30m, or 0")]
pub struct InvalidSpan;

const SIZE_UNITS: &[(&str, u64)] = &[
    ("", 1),
    ("b", 1),
    ("k", 1 << 10),
    ("kib", 1 << 10),
    ("kb", 1_000),
    ("m", 1 << 20),
    ("mib", 1 << 20),
    ("mb", 1_000_000),
    ("g", 1 << 30),
    ("gib", 1 << 30),
    ("gb", 1_000_000_000),
    ("t", 1 << 40),
    ("tib", 1 << 40),
    ("tb", 1_000_000_000_000),
];

const SPAN_UNITS: &[(&str, u64)] = &[("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

impl FromStr for ByteSize {
    type Err = InvalidSize;

    fn from_str(text: &str) -> Result<Self, InvalidSize> {
        let (digits, unit) = split_number(text.trim()).ok_or(InvalidSize)?;
        let unit = unit.trim().to_ascii_lowercase();
        let (_, factor) = SIZE_UNITS.iter().find(|(name, _)| *name == unit).ok_or(InvalidSize)?;
        digits.parse::<u64>().ok().and_then(|number| number.checked_mul(*factor)).map(ByteSize).ok_or(InvalidSize)
    }
}

impl FromStr for TimeSpan {
    type Err = InvalidSpan;

    fn from_str(text: &str) -> Result<Self, InvalidSpan> {
        let mut rest = text.trim();
        if rest == "0" {
            return Ok(TimeSpan(Duration::ZERO));
        }
        let mut millis: u64 = 0;
        while !rest.is_empty() {
            let (digits, tail) = split_number(rest).ok_or(InvalidSpan)?;
            let end = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
            let (unit, next) = tail.split_at(end);
            let (_, factor) = SPAN_UNITS.iter().find(|(name, _)| *name == unit).ok_or(InvalidSpan)?;
            let part = digits.parse::<u64>().ok().and_then(|number| number.checked_mul(*factor));
            millis = part.and_then(|part| millis.checked_add(part)).ok_or(InvalidSpan)?;
            rest = next;
        }
        if text.trim().is_empty() { Err(InvalidSpan) } else { Ok(TimeSpan(Duration::from_millis(millis))) }
    }
}

fn split_number(text: &str) -> Option<(&str, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    (end > 0).then(|| text.split_at(end))
}

impl fmt::Display for ByteSize {
    /// In the largest binary unit that leaves at least one, with one decimal.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
        let mut unit = 0;
        let mut scaled = self.0 as f64;
        // 1023.95 would be printed as 1024.0.
        while scaled >= 1023.95 && unit + 1 < UNITS.len() {
            scaled /= 1024.0;
            unit += 1;
        }
        match unit {
            0 => write!(f, "{} B", self.0),
            _ => write!(f, "{scaled:.1} {}", UNITS[unit]),
        }
    }
}

impl fmt::Display for TimeSpan {
    /// In at most two units, such as `3d 4h`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        match seconds {
            0 if !self.0.is_zero() => write!(f, "{}ms", self.0.as_millis()),
            0..60 => write!(f, "{seconds}s"),
            60..3600 => two(f, seconds / 60, "m", seconds % 60, "s"),
            3600..86_400 => two(f, seconds / 3600, "h", seconds % 3600 / 60, "m"),
            86_400.. => two(f, seconds / 86_400, "d", seconds % 86_400 / 3600, "h"),
        }
    }
}

fn two(f: &mut fmt::Formatter<'_>, large: u64, large_unit: &str, small: u64, small_unit: &str) -> fmt::Result {
    write!(f, "{large}{large_unit}")?;
    if small > 0 { write!(f, " {small}{small_unit}") } else { Ok(()) }
}

/// A number or a text, as configuration files have it.
#[derive(Deserialize)]
#[serde(untagged)]
enum NumberOrText {
    Number(u64),
    Text(String),
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match NumberOrText::deserialize(deserializer).map_err(|_| serde::de::Error::custom(InvalidSize))? {
            NumberOrText::Number(bytes) => Ok(ByteSize(bytes)),
            NumberOrText::Text(text) => text.parse().map_err(serde::de::Error::custom),
        }
    }
}

impl<'de> Deserialize<'de> for TimeSpan {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer).map_err(|_| serde::de::Error::custom(InvalidSpan))?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// A count with separators: `1,234,567`.
#[must_use]
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A count of things, whose name takes an `s` in the plural: `1 file`, `1,234 files`.
#[must_use]
pub fn counted(number: u64, thing: &str) -> String {
    format!("{} {thing}{}", count(number), if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_thing_is_not_many() {
        assert_eq!(counted(0, "file"), "0 files");
        assert_eq!(counted(1, "file"), "1 file");
        assert_eq!(counted(1234, "file"), "1,234 files");
    }

    #[test]
    fn sizes_are_read_in_binary_and_decimal_units() {
        let size = |text: &str| text.parse::<ByteSize>().map(|size| size.0);
        assert_eq!(size("4096"), Ok(4096));
        assert_eq!(size("64MiB"), Ok(64 << 20));
        assert_eq!(size("1 GiB"), Ok(1 << 30));
        assert_eq!(size("10GB"), Ok(10_000_000_000));
        for bad in ["", "MiB", "-1", "1.5GiB", "1XB", "99999999999TiB"] {
            assert_eq!(size(bad), Err(InvalidSize), "{bad}");
        }
    }

    #[test]
    fn spans_are_read_in_parts() {
        let span = |text: &str| text.parse::<TimeSpan>().map(|span| span.0.as_millis());
        assert_eq!(span("24h"), Ok(86_400_000));
        assert_eq!(span("1h30m"), Ok(5_400_000));
        assert_eq!(span("500ms"), Ok(500));
        assert_eq!(span("0"), Ok(0));
        for bad in ["", "24", "h", "1w", "-1s", "1h30"] {
            assert_eq!(span(bad), Err(InvalidSpan), "{bad}");
        }
    }

    #[test]
    fn sizes_spans_and_counts_are_written_for_people() {
        assert_eq!(ByteSize(1023).to_string(), "1023 B");
        assert_eq!(ByteSize(1536).to_string(), "1.5 KiB");
        assert_eq!(ByteSize((1 << 20) - 1).to_string(), "1.0 MiB");
        assert_eq!(ByteSize(u64::MAX).to_string(), "16.0 EiB");
        assert_eq!(TimeSpan(Duration::from_secs(86_400)).to_string(), "1d");
        assert_eq!(TimeSpan(Duration::from_secs(93_784)).to_string(), "1d 2h");
        assert_eq!(TimeSpan(Duration::from_millis(20)).to_string(), "20ms");
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(count(12), "12");
    }
}
