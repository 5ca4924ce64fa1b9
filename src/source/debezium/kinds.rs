//! What the schema of an event says of its columns: a value in the words of a document.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use jiff::civil::Date;
use serde_json::Value as Json;

/// What the schema says of a column whose JSON alone does not say enough.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Days,
    Milliseconds,
    Microseconds,
    Nanoseconds,
    /// Base64 of an unscaled integer, big-endian.
    Decimal {
        scale: u32,
    },
    /// The same with its scale, in an object: of a column whose numbers have scales of their own.
    ScaledDecimal,
    /// A text that holds JSON.
    Json,
    /// A time of day, counted from midnight in units of this many nanoseconds.
    TimeOfDay {
        nanoseconds: u64,
    },
    /// An array of these.
    Array(Box<Kind>),
}

/// The schema of one side of an envelope.
pub(super) fn field_of<'a>(schema: &'a Json, side: &str) -> Option<&'a Json> {
    schema["fields"].as_array()?.iter().find(|field| field["field"] == side)
}

/// What it says of each column.
pub(super) fn kinds_of(schema: Option<&Json>) -> BTreeMap<String, Kind> {
    let fields = schema.and_then(|schema| schema["fields"].as_array()).into_iter().flatten();
    fields.filter_map(|field| Some((field["field"].as_str()?.to_owned(), kind_of(field)?))).collect()
}

fn kind_of(field: &Json) -> Option<Kind> {
    if field["type"] == "array" {
        return Some(Kind::Array(Box::new(kind_of(&field["items"])?)));
    }
    let name = field["name"].as_str()?;
    Some(match name.rsplit('.').next()? {
        "Date" => Kind::Days,
        "Timestamp" => Kind::Milliseconds,
        "MicroTimestamp" => Kind::Microseconds,
        "NanoTimestamp" => Kind::Nanoseconds,
        "Time" => Kind::TimeOfDay { nanoseconds: 1_000_000 },
        "MicroTime" => Kind::TimeOfDay { nanoseconds: 1_000 },
        "NanoTime" => Kind::TimeOfDay { nanoseconds: 1 },
        "Decimal" => Kind::Decimal { scale: field["parameters"]["scale"].as_str()?.parse().ok()? },
        "VariableScaleDecimal" => Kind::ScaledDecimal,
        "Json" => Kind::Json,
        _ => return None,
    })
}

/// A value in the words of a document; as it is where the schema says nothing or it does not fit.
pub(super) fn convert(value: Json, kind: Option<&Kind>) -> Json {
    let value = match (kind, value) {
        (Some(Kind::Array(kind)), Json::Array(items)) => {
            return items.into_iter().map(|item| convert(item, Some(kind))).collect();
        }
        (_, value) => value,
    };
    let converted = match (kind, &value) {
        (Some(Kind::Days), Json::Number(days)) => days.as_i64().and_then(date),
        (Some(Kind::Milliseconds), Json::Number(n)) => n.as_i64().and_then(|n| time(i128::from(n) * 1_000_000)),
        (Some(Kind::Microseconds), Json::Number(n)) => n.as_i64().and_then(|n| time(i128::from(n) * 1_000)),
        (Some(Kind::Nanoseconds), Json::Number(n)) => n.as_i64().and_then(|n| time(i128::from(n))),
        (Some(kind @ (Kind::Decimal { .. } | Kind::ScaledDecimal)), value) => {
            digits(value, kind).and_then(|digits| serde_json::from_str(&digits).ok())
        }
        (Some(Kind::TimeOfDay { nanoseconds }), Json::Number(n)) => {
            n.as_u64().and_then(|n| time_of_day(n.checked_mul(*nanoseconds)?))
        }
        (Some(Kind::Json), Json::String(text)) => serde_json::from_str(text).ok(),
        _ => None,
    };
    converted.unwrap_or(value)
}

fn date(days: i64) -> Option<Json> {
    let days = jiff::Span::new().try_days(days).ok()?;
    Some(Json::from(Date::constant(1970, 1, 1).checked_add(days).ok()?.to_string()))
}

fn time(nanoseconds: i128) -> Option<Json> {
    Timestamp::from_nanosecond(nanoseconds).ok().map(|time| Json::from(time.to_string()))
}

/// As Postgres writes it, which has `24:00:00` too.
fn time_of_day(nanoseconds: u64) -> Option<Json> {
    let (seconds, fraction) = (nanoseconds / 1_000_000_000, nanoseconds % 1_000_000_000);
    let whole = format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
    let fraction = format!(".{fraction:09}");
    (nanoseconds <= 86_400_000_000_000)
        .then(|| Json::from(whole + fraction.trim_end_matches('0').trim_end_matches('.')))
}

/// All digits of a decimal of either kind.
pub(super) fn digits(value: &Json, kind: &Kind) -> Option<String> {
    match (kind, value) {
        (Kind::Decimal { scale }, Json::String(text)) => decimal(text, *scale),
        (Kind::ScaledDecimal, Json::Object(number)) => {
            let scale = u32::try_from(number.get("scale")?.as_u64()?).ok()?;
            decimal(number.get("value")?.as_str()?, scale)
        }
        _ => None,
    }
}

/// The digits of a number of up to 16 bytes; longer ones stay as they came.
fn decimal(text: &str, scale: u32) -> Option<String> {
    let bytes = STANDARD.decode(text).ok()?;
    if bytes.is_empty() || bytes.len() > 16 || scale > 38 {
        return None;
    }
    let sign = if bytes[0] & 0x80 == 0 { 0 } else { 0xff };
    let mut wide = [sign; 16];
    wide[16 - bytes.len()..].copy_from_slice(&bytes);
    let number = i128::from_be_bytes(wide);
    let digits = format!("{:0width$}", number.unsigned_abs(), width = scale as usize + 1);
    let (whole, fraction) = digits.split_at(digits.len() - scale as usize);
    let point = if fraction.is_empty() { "" } else { "." };
    let sign = if number < 0 { "-" } else { "" };
    Some(format!("{sign}{whole}{point}{fraction}"))
}
