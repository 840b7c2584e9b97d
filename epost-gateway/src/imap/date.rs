//! Dates as IMAP writes them: `17-Jul-1996` in SEARCH, `"17-Jul-1996 02:44:25 -0700"` for INTERNALDATE.
//!
//! The calendar is the proleptic Gregorian one; the arithmetic on days is done here because it is forty lines and
//! a calendar library is a dependency.

use super::command::Date;

const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
const DAY_S: i64 = 24 * 60 * 60;

/// Days from 1 January 1970 to the first of March of a year, counted so that a leap day ends the year.
fn days_to_march(year: i64) -> i64 {
    year * 365 + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) - 719_468
}

/// Days before a month in a year that begins in March (month 0).
fn days_before_month(month_from_march: i64) -> i64 {
    (153 * month_from_march + 2) / 5
}

/// Days since 1 January 1970.
#[must_use]
pub(super) fn days_of(date: Date) -> i64 {
    let month_from_march = (i64::from(date.month) + 9) % 12;
    let year = i64::from(date.year) - i64::from(date.month <= 2);
    days_to_march(year) + days_before_month(month_from_march) + i64::from(date.day) - 1
}

/// The date of a day; years outside 0 to 9999 are held at those bounds, because four digits are all there is.
fn date_of(days: i64) -> Date {
    let mut year = (days + 719_468).div_euclid(365).clamp(-1, 10_000);
    while days_to_march(year) > days && year > -1 {
        year -= 1;
    }
    let day_of_year = (days - days_to_march(year)).clamp(0, 365);
    let month_from_march = ((5 * day_of_year + 2) / 153).min(11);
    let day = day_of_year - days_before_month(month_from_march) + 1;
    let month = (month_from_march + 2) % 12 + 1;
    let year = (year + i64::from(month <= 2)).clamp(0, 9999);
    Date { year: year as u16, month: month as u8, day: day as u8 }
}

/// The UTC date of a moment.
#[must_use]
pub(super) fn date_at(seconds: i64) -> Date {
    date_of(seconds.div_euclid(DAY_S))
}

/// A moment as INTERNALDATE writes it, without the quotes; always in UTC.
#[must_use]
pub(super) fn render_date_time(seconds: i64) -> String {
    let Date { year, month, day } = date_at(seconds);
    let month = MONTHS[usize::from(month - 1)];
    let of_day = seconds.rem_euclid(DAY_S);
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!("{day:>2}-{month}-{year:04} {hour:02}:{minute:02}:{second:02} +0000")
}

fn days_in_month(year: u16, month: u8) -> u8 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400)) => 29,
        2 => 28,
        _ => 31,
    }
}

fn digits(text: &str, shortest: usize, longest: usize) -> Option<u32> {
    let long_enough = (shortest..=longest).contains(&text.len());
    let all_digits = text.bytes().all(|octet| octet.is_ascii_digit());
    if long_enough && all_digits { text.parse().ok() } else { None }
}

/// Reads `1-Feb-1994`; the day may have one digit or two.
#[must_use]
pub(super) fn parse_date(text: &str) -> Option<Date> {
    let mut parts = text.split('-');
    let (day, month, year) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() {
        return None;
    }
    let month = MONTHS.iter().position(|known| known.eq_ignore_ascii_case(month))? as u8 + 1;
    let year = digits(year, 4, 4)? as u16;
    let day = digits(day, 1, 2)? as u8;
    (1..=days_in_month(year, month)).contains(&day).then_some(Date { year, month, day })
}

/// Reads `17-Jul-1996 02:44:25 -0700` (a day of one digit is padded with a space) as seconds since the epoch.
#[must_use]
pub(super) fn parse_date_time(text: &str) -> Option<i64> {
    let mut words = text.strip_prefix(' ').unwrap_or(text).split(' ');
    let (date, time, zone) = (words.next()?, words.next()?, words.next()?);
    if words.next().is_some() {
        return None;
    }
    let date = parse_date(date)?;
    let mut clock = time.split(':');
    let (hour, minute, second) = (clock.next()?, clock.next()?, clock.next()?);
    if clock.next().is_some() {
        return None;
    }
    let (hour, minute, second) = (digits(hour, 2, 2)?, digits(minute, 2, 2)?, digits(second, 2, 2)?);
    let sign = match zone.as_bytes().first()? {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let zone = digits(zone.get(1..)?, 4, 4)?;
    let (zone_hours, zone_minutes) = (zone / 100, zone % 100);
    // 60 is a leap second.
    if hour > 23 || minute > 59 || second > 60 || zone_hours > 23 || zone_minutes > 59 {
        return None;
    }
    let local = days_of(date) * DAY_S + i64::from(hour * 3600 + minute * 60 + second);
    Some(local - sign * i64::from(zone_hours * 3600 + zone_minutes * 60))
}

#[cfg(test)]
mod tests {
    //! Goal: dates are right over the whole range. Method: walk every day of ten thousand years with a plain
    //! calendar beside the arithmetic; then the RFC's examples and broken ones.
    use super::*;

    #[test]
    fn every_day_of_ten_thousand_years() {
        let mut date = Date { year: 0, month: 1, day: 1 };
        let mut days = days_of(date);
        assert_eq!(days_of(Date { year: 1970, month: 1, day: 1 }), 0);
        while date.year <= 9998 {
            assert_eq!(days_of(date), days, "{date:?}");
            assert_eq!(date_of(days), date);
            days += 1;
            date.day += 1;
            if date.day > days_in_month(date.year, date.month) {
                date.day = 1;
                date.month += 1;
            }
            if date.month > 12 {
                date.month = 1;
                date.year += 1;
            }
        }
    }

    #[test]
    fn date_times() {
        assert_eq!(parse_date_time("17-Jul-1996 02:44:25 -0700"), Some(837_596_665));
        assert_eq!(render_date_time(837_596_665), "17-Jul-1996 09:44:25 +0000");
        assert_eq!(parse_date_time(" 1-Jan-1970 00:00:00 +0000"), Some(0));
        assert_eq!(render_date_time(0), " 1-Jan-1970 00:00:00 +0000");
        assert_eq!(render_date_time(-1), "31-Dec-1969 23:59:59 +0000");
        for broken in [
            "17-Jul-1996",
            "32-Jul-1996 02:44:25 -0700",
            "29-Feb-1900 00:00:00 +0000",
            "17-Jul-96 02:44:25 -0700",
            "17-Jul-1996 24:00:00 +0000",
            "17-Jul-1996 02:44:25 0700",
            "17-Jul-1996 02:44:25 -07:0",
            "",
            "17-Jul-1996 02:44:25 +",
            "17-Jul-1996  02:44:25 +0000",
        ] {
            assert_eq!(parse_date_time(broken), None, "{broken}");
        }
        for extreme in [i64::MIN, i64::MAX, -62_200_000_000_000, 253_402_300_800] {
            assert!(render_date_time(extreme).len() >= 26, "no panic far out");
        }
    }
}
