//! CSV with a header row: each row an object of its cells.

use std::collections::BTreeMap;
use std::io::BufRead;

use super::{LineError, Record, string};
use crate::cli::CliError;
use crate::types::{FieldType, GeoPoint, Metadata, Value};

/// Declared types of metadata fields: how a cell of that column is understood. Other cells stay strings.
pub(in crate::cli) type FieldTypes = BTreeMap<String, FieldType>;

/// Begins to read a CSV file.
///
/// # Errors
/// [`CliError::Refused`] when the first row is no row of names, [`CliError::Io`].
pub(super) fn read<R: BufRead + 'static>(
    input: R,
    types: FieldTypes,
) -> Result<impl Iterator<Item = Result<Record, CliError>>, CliError> {
    let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(input);
    let names = reader.headers().map_err(refuse)?.clone();
    if names.is_empty() {
        return Err(CliError::Refused(
            "the input is empty; a CSV file begins with the names of its columns".to_owned(),
        ));
    }
    for (index, name) in names.iter().enumerate() {
        if name.is_empty() || names.iter().take(index).any(|earlier| earlier == name) {
            let detail =
                format!("column {} of the first row is named {name:?}; give every column its own name", index + 1);
            return Err(CliError::Refused(detail));
        }
    }
    let rows = reader.into_byte_records().enumerate().map(move |(index, row)| {
        let row = row.map_err(refuse)?;
        Ok(Record { position: index as u64 + 1, content: object(&row, &names, &types) })
    });
    Ok(rows)
}

fn refuse(error: csv::Error) -> CliError {
    let text = error.to_string();
    match error.into_kind() {
        csv::ErrorKind::Io(error) => CliError::io("read the input", error),
        _ => CliError::Refused(format!("the input is not valid CSV: {text}")),
    }
}

/// Empty cells are left out: CSV cannot tell an empty text from none.
fn object(row: &csv::ByteRecord, names: &csv::StringRecord, types: &FieldTypes) -> Result<Metadata, LineError> {
    if row.len() != names.len() {
        let detail = format!("the row has {} cells, the first row names {} columns", row.len(), names.len());
        return Err(LineError::new("invalid_value", detail));
    }
    let mut object = Metadata::new();
    for (name, bytes) in names.iter().zip(row) {
        let cell = std::str::from_utf8(bytes).map_err(|error| {
            let detail = format!("column {name:?} is not UTF-8 (byte {}); save the file as UTF-8", error.valid_up_to());
            LineError::new("invalid_value", detail)
        })?;
        if !cell.is_empty() {
            object.insert(name.to_owned(), value(name, cell, types.get(name))?);
        }
    }
    Ok(object)
}

fn value(name: &str, cell: &str, declared: Option<&FieldType>) -> Result<Value, LineError> {
    let fail = |what| {
        let detail = format!("column {name:?} is declared as {what} and the cell is {cell:?}");
        LineError::new("field_type_mismatch", detail)
    };
    match declared {
        Some(FieldType::Number) => number(cell.trim()).ok_or_else(|| fail("a number")),
        Some(FieldType::Boolean) => match cell.trim().to_ascii_lowercase().as_str() {
            "true" => Ok(Value::Bool(true)),
            "false" => Ok(Value::Bool(false)),
            _ => Err(fail("a boolean (true or false)")),
        },
        Some(FieldType::Geo) => point(cell).ok_or_else(|| fail("a point (latitude, longitude)")),
        Some(FieldType::Keyword) | None => Ok(string(cell)),
    }
}

/// A cell such as `59.91, 10.75`.
fn point(cell: &str) -> Option<Value> {
    let (lat, lon) = cell.split_once(',')?;
    let object = [("lat".to_owned(), number(lat.trim())?), ("lon".to_owned(), number(lon.trim())?)];
    let value = Value::Object(object.into());
    GeoPoint::of(&value).map(|_| value)
}

fn number(cell: &str) -> Option<Value> {
    if let Ok(int) = cell.parse::<i64>() {
        return Some(Value::Int(int));
    }
    cell.parse::<f64>().ok().filter(|float| float.is_finite()).map(Value::Float)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(text: &'static str, types: &[(&str, FieldType)]) -> Vec<Result<Metadata, String>> {
        let types = types.iter().map(|(name, kind)| ((*name).to_owned(), *kind)).collect();
        let rows = read(text.as_bytes(), types).unwrap();
        rows.map(|record| record.unwrap().content.map_err(|error| error.detail)).collect()
    }

    fn refusal(text: &'static str) -> String {
        read(text.as_bytes(), FieldTypes::new()).err().unwrap().to_string()
    }

    #[test]
    fn cells_stay_strings_unless_the_field_is_declared() {
        let text = "id,price,stock,note\n1,9.50,true,\"a, \"\"b\"\"\nc\"\n2,3,FALSE,\n";
        let plain = rows(text, &[]);
        assert_eq!(plain[0].as_ref().unwrap()["price"], string("9.50"));
        assert_eq!(plain[0].as_ref().unwrap()["note"], string("a, \"b\"\nc"));
        assert!(!plain[1].as_ref().unwrap().contains_key("note"));
        let typed = rows(text, &[("price", FieldType::Number), ("stock", FieldType::Boolean)]);
        assert_eq!(typed[0].as_ref().unwrap()["price"], Value::Float(9.5));
        assert_eq!(typed[1].as_ref().unwrap()["price"], Value::Int(3));
        assert_eq!(typed[1].as_ref().unwrap()["stock"], Value::Bool(false));
    }

    #[test]
    fn points_are_two_numbers_in_a_cell() {
        let found = rows("id,at\na,\"59.91, 10.75\"\nb,\"91,0\"\nc,1\n", &[("at", FieldType::Geo)]);
        let point = GeoPoint::of(&found[0].as_ref().unwrap()["at"]).unwrap();
        assert_eq!((point.lat(), point.lon()), (59.91, 10.75));
        assert!(found[1..].iter().all(|row| row.as_ref().unwrap_err().contains("a point")), "{found:?}");
    }

    #[test]
    fn bad_rows_are_named_and_the_next_is_read() {
        let types = [("n", FieldType::Number)];
        let found = rows("id,n\na\nb,x\nc,NaN\nd,inf\ne,1\nf,1,2\n", &types);
        assert!(found[0].as_ref().unwrap_err().contains("1 cells, the first row names 2"));
        for row in &found[1..4] {
            assert!(row.as_ref().unwrap_err().contains("declared as a number"), "{row:?}");
        }
        assert!(found[4].is_ok() && found[5].is_err());
    }

    #[test]
    fn the_first_row_names_every_column_once() {
        assert!(refusal("").contains("empty"));
        assert!(refusal("a,b,a\n").contains("column 3"));
        assert!(refusal("a,\n").contains("column 2"));
    }
}
