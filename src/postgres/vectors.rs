//! Arrays of pgvector's `vector` as parameters, in its binary form.

use std::error::Error;

use bytes::{BufMut, BytesMut};
use tokio_postgres::types::{IsNull, Kind, ToSql, Type, to_sql_checked};

/// One vector a row: f32, all of one shape `[dim]`; `None` is NULL.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct VectorArray(pub Vec<Option<Vec<f32>>>);

impl ToSql for VectorArray {
    /// An array of one dimension (array_recv), whose elements are as vector_recv of pgvector 0.8 reads them: dim and
    /// zero as 16 bits, then the numbers, all big-endian.
    fn to_sql(&self, ty: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        let Kind::Array(element) = ty.kind() else { return Err("vectors go into an array".into()) };
        out.put_i32(1);
        out.put_i32(i32::from(self.0.iter().any(Option::is_none)));
        out.put_u32(element.oid());
        out.put_i32(i32::try_from(self.0.len())?);
        out.put_i32(1);
        for vector in &self.0 {
            let Some(vector) = vector else {
                out.put_i32(-1);
                continue;
            };
            out.put_i32(i32::try_from(4 + 4 * vector.len())?);
            out.put_i16(i16::try_from(vector.len())?);
            out.put_i16(0);
            vector.iter().for_each(|x| out.put_f32(*x));
        }
        Ok(IsNull::No)
    }

    fn accepts(ty: &Type) -> bool {
        matches!(ty.kind(), Kind::Array(_))
    }

    to_sql_checked!();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden() {
        let vector = Type::new("vector".into(), 0x1234, Kind::Simple, "public".into());
        let array = Type::new("_vector".into(), 0x1235, Kind::Array(vector), "public".into());
        let mut bytes = BytesMut::new();
        VectorArray(vec![Some(vec![1.0, -2.0]), None]).to_sql(&array, &mut bytes).unwrap();
        let mut expected = vec![0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0x12, 0x34, 0, 0, 0, 2, 0, 0, 0, 1];
        expected.extend([0, 0, 0, 12, 0, 2, 0, 0, 0x3f, 0x80, 0, 0, 0xc0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]);
        assert_eq!(bytes.as_ref(), expected);
    }
}
