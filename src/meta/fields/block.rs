//! Blocks of postings and tables of fields, as bytes. Layout: `docs/formats/meta.md`.

use roaring::RoaringBitmap;

use super::term::Term;

/// A block is closed once it holds so many bytes.
const BLOCK_BYTES: usize = 4 << 10;
/// Up to this many rows are a list; more are a roaring bitmap.
const LISTED_ROWS: usize = 16;
const TABLE_VERSION: u8 = 1;
const CHECKSUM_BYTES: usize = 4;

/// Bytes that are not what was written.
#[derive(Debug, PartialEq, Eq)]
pub struct Damage;

/// Terms of one field in one page, ascending, each with its rows of the page, ascending.
pub type Postings = [(Term, Vec<u16>)];

/// One block: the key is the field's prefix followed by the block's first term.
#[derive(Debug)]
pub struct Block {
    pub key: Vec<u8>,
    pub value: Vec<u8>,
}

/// The blocks of a field whose keys start with `prefix`. The first block's key is the prefix alone, so that any term
/// has a block that it would stand in; each names the first term of the next, so that a lost block is noticed.
pub fn encode_blocks(prefix: &[u8], postings: &Postings) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut at = 0;
    while at < postings.len() {
        let mut entries = Vec::new();
        let start = at;
        while at < postings.len() && (at == start || entries.len() < BLOCK_BYTES) {
            encode_entry(&postings[at], &mut entries);
            at += 1;
        }
        let next = postings.get(at).map_or(&[][..], |(term, _)| term);
        let mut value = Vec::with_capacity(entries.len() + next.len() + 8);
        push_bytes(&mut value, next);
        value.extend(((at - start) as u16).to_le_bytes());
        value.extend(entries);
        let mut key = prefix.to_vec();
        if start > 0 {
            key.extend(&postings[start].0);
        }
        seal(&key, &mut value);
        blocks.push(Block { key, value });
    }
    blocks
}

fn encode_entry((term, rows): &(Term, Vec<u16>), out: &mut Vec<u8>) {
    push_bytes(out, term);
    out.extend((rows.len() as u32).to_le_bytes());
    if rows.len() <= LISTED_ROWS {
        out.extend(rows.iter().flat_map(|row| row.to_le_bytes()));
        return;
    }
    let mut bitmap: RoaringBitmap = rows.iter().map(|&row| u32::from(row)).collect();
    bitmap.optimize();
    out.extend((bitmap.serialized_size() as u32).to_le_bytes());
    bitmap.serialize_into(out).expect("memory takes any bytes");
}

/// `bytes` are shorter than 64 KiB.
fn push_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend((bytes.len() as u16).to_le_bytes());
    out.extend(bytes);
}

/// Appends a checksum over key and value, so that a value under another key is found out.
fn seal(key: &[u8], value: &mut Vec<u8>) {
    let crc = crc32c::crc32c_append(crc32c::crc32c(key), value);
    value.extend(crc.to_le_bytes());
}

fn unseal<'a>(key: &[u8], value: &'a [u8]) -> Result<&'a [u8], Damage> {
    let (content, crc) = value.split_last_chunk::<CHECKSUM_BYTES>().ok_or(Damage)?;
    match crc32c::crc32c_append(crc32c::crc32c(key), content) == u32::from_le_bytes(*crc) {
        true => Ok(content),
        false => Err(Damage),
    }
}

/// Reads from the front of bytes.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Damage> {
        let (head, rest) = self.0.split_at_checked(count).ok_or(Damage)?;
        self.0 = rest;
        Ok(head)
    }

    fn number<const N: usize>(&mut self) -> Result<[u8; N], Damage> {
        self.take(N)?.try_into().map_err(|_| Damage)
    }

    fn u16(&mut self) -> Result<u16, Damage> {
        Ok(u16::from_le_bytes(self.number()?))
    }

    fn u32(&mut self) -> Result<u32, Damage> {
        Ok(u32::from_le_bytes(self.number()?))
    }

    fn bytes(&mut self) -> Result<&'a [u8], Damage> {
        let len = self.u16()?;
        self.take(usize::from(len))
    }
}

/// The rows of a term, still as bytes.
#[derive(Clone, Copy)]
pub enum Rows<'a> {
    Listed(&'a [u8]),
    Bitmap(&'a [u8]),
}

impl Rows<'_> {
    /// Calls `visit` with each row of the page, ascending.
    pub fn for_each(self, mut visit: impl FnMut(u32)) -> Result<(), Damage> {
        match self {
            Rows::Listed(bytes) => {
                bytes.as_chunks::<2>().0.iter().for_each(|row| visit(u32::from(u16::from_le_bytes(*row))));
            }
            Rows::Bitmap(bytes) => {
                RoaringBitmap::deserialize_from(bytes).map_err(|_| Damage)?.iter().for_each(visit);
            }
        }
        Ok(())
    }
}

/// A block being read.
pub struct BlockReader<'a> {
    /// First term of the field's next block; empty behind the last.
    pub next: &'a [u8],
    left: u16,
    reader: Reader<'a>,
}

impl<'a> BlockReader<'a> {
    /// Checks the checksum.
    pub fn open(key: &[u8], value: &'a [u8]) -> Result<Self, Damage> {
        let mut reader = Reader(unseal(key, value)?);
        Ok(Self { next: reader.bytes()?, left: reader.u16()?, reader })
    }

    /// The next term with its rows; `None` behind the last.
    pub fn entry(&mut self) -> Result<Option<(&'a [u8], Rows<'a>)>, Damage> {
        let Some(left) = self.left.checked_sub(1) else { return Ok(None) };
        self.left = left;
        let term = self.reader.bytes()?;
        let count = self.reader.u32()? as usize;
        let rows = match count <= LISTED_ROWS {
            true => Rows::Listed(self.reader.take(2 * count)?),
            false => {
                let len = self.reader.u32()? as usize;
                Rows::Bitmap(self.reader.take(len)?)
            }
        };
        Ok(Some((term, rows)))
    }
}

/// Which fields a page has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// Paths in ascending order; a field's number is its place here.
    pub paths: Vec<String>,
    /// Whether there were more fields than are indexed: a path that is missing may still be in some row.
    pub overflowed: bool,
}

impl Table {
    /// The number of a field.
    pub fn field(&self, path: &str) -> Option<u16> {
        self.paths.binary_search_by(|known| known.as_str().cmp(path)).ok().map(|at| at as u16)
    }

    pub fn encode(&self, key: &[u8]) -> Vec<u8> {
        let mut value = vec![TABLE_VERSION, u8::from(self.overflowed)];
        value.extend((self.paths.len() as u16).to_le_bytes());
        self.paths.iter().for_each(|path| push_bytes(&mut value, path.as_bytes()));
        seal(key, &mut value);
        value
    }

    pub fn decode(key: &[u8], value: &[u8]) -> Result<Self, Damage> {
        let mut reader = Reader(unseal(key, value)?);
        let [version, overflowed] = reader.number()?;
        if version != TABLE_VERSION || overflowed > 1 {
            return Err(Damage);
        }
        let count = reader.u16()?;
        let path = |_| Ok(std::str::from_utf8(reader.bytes()?).map_err(|_| Damage)?.to_owned());
        let paths = (0..count).map(path).collect::<Result<Vec<_>, Damage>>()?;
        Ok(Self { paths, overflowed: overflowed == 1 })
    }
}

/// The value of the marker that says "the fields of this segment are in": the segment's rows.
pub fn encode_marker(key: &[u8], rows: u32) -> Vec<u8> {
    let mut value = rows.to_le_bytes().to_vec();
    seal(key, &mut value);
    value
}

pub fn decode_marker(key: &[u8], value: &[u8]) -> Result<u32, Damage> {
    Reader(unseal(key, value)?).u32()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn postings() -> Vec<(Term, Vec<u16>)> {
        let many = |term: &[u8], rows: std::ops::Range<u16>| (term.to_vec(), rows.collect::<Vec<_>>());
        vec![many(b"\x01", 0..1_000), many(b"\x40a", 3..5), many(b"\x40b", 100..117)]
    }

    fn read(blocks: &[Block]) -> Result<Vec<(Term, Vec<u16>)>, Damage> {
        let mut found = Vec::new();
        for block in blocks {
            let mut reader = BlockReader::open(&block.key, &block.value)?;
            while let Some((term, rows)) = reader.entry()? {
                let mut list = Vec::new();
                rows.for_each(|row| list.push(row as u16))?;
                found.push((term.to_vec(), list));
            }
        }
        Ok(found)
    }

    #[test]
    fn postings_round_trip_in_chained_blocks() {
        let mut postings = postings();
        postings.extend((0..2_000u16).map(|n| (format!("\x41{n:05}").into_bytes(), vec![n])));
        let blocks = encode_blocks(b"key", &postings);
        assert!(blocks.len() > 3, "{}", blocks.len());
        assert_eq!(read(&blocks).unwrap(), postings);
        assert_eq!(blocks[0].key, b"key");
        for pair in blocks.windows(2) {
            let reader = BlockReader::open(&pair[0].key, &pair[0].value).unwrap();
            assert_eq!([b"key", reader.next].concat(), pair[1].key);
        }
        let last = blocks.last().unwrap();
        assert!(BlockReader::open(&last.key, &last.value).unwrap().next.is_empty());
        assert!(encode_blocks(b"key", &[]).is_empty());
    }

    #[test]
    fn a_block_has_these_bytes() {
        let blocks = encode_blocks(b"k", &[(b"\x40ab".to_vec(), vec![1, 258])]);
        let mut expected = b"\0\0\x01\0\x03\0\x40ab\x02\0\0\0\x01\0\x02\x01".to_vec();
        let crc = crc32c::crc32c_append(crc32c::crc32c(b"k"), &expected);
        expected.extend(crc.to_le_bytes());
        assert_eq!(blocks[0].value, expected);
    }

    #[test]
    fn every_truncation_and_bit_flip_is_noticed() {
        let blocks = encode_blocks(b"key", &postings());
        let Block { key, value } = &blocks[0];
        for len in 0..value.len() {
            assert!(BlockReader::open(key, &value[..len]).is_err(), "{len}");
        }
        for bit in 0..value.len() * 8 {
            let mut bad = value.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(BlockReader::open(key, &bad).is_err(), "bit {bit}");
        }
        assert!(BlockReader::open(b"other", value).is_err());
    }

    #[test]
    fn nonsense_under_a_right_checksum_is_damage() {
        for content in [&b""[..], b"\xff\xff", b"\0\0\x01\0", b"\0\0\x01\0\0\0\x11\0\0\0\x02\0\0\0ab"] {
            let mut value = content.to_vec();
            seal(b"key", &mut value);
            assert!(read(&[Block { key: b"key".to_vec(), value }]).is_err(), "{content:?}");
        }
    }

    #[test]
    fn tables_and_markers_round_trip() {
        let table = Table { paths: vec!["a".into(), "a.b".into(), "z".into()], overflowed: true };
        let value = table.encode(b"key");
        assert_eq!(Table::decode(b"key", &value), Ok(table.clone()));
        assert_eq!((table.field("a.b"), table.field("b")), (Some(1), None));
        for len in 0..value.len() {
            assert_eq!(Table::decode(b"key", &value[..len]), Err(Damage), "{len}");
        }
        assert_eq!(Table::decode(b"other", &value), Err(Damage));
        let marker = encode_marker(b"key", 77);
        assert_eq!((decode_marker(b"key", &marker), decode_marker(b"kez", &marker)), (Ok(77), Err(Damage)));
    }
}
