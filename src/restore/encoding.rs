//! Takes the content encoding off a body that is already in memory, up to a limit: a small body that would
//! grow without end (a decompression bomb) is left alone.

use std::io::Read;

use flate2::read::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};

/// How much brotli reads at a time.
const BROTLI_BUFFER_BYTES: usize = 4096;

/// Decodes a body by its `Content-Encoding`: `gzip`, `deflate`, `br`, `identity`, or a list of them in the order
/// in which they were applied. `None`: an unknown encoding, damaged bytes, or more than `limit` bytes.
#[must_use]
pub fn decode(encoding: &str, bytes: &[u8], limit: usize) -> Option<Vec<u8>> {
    let mut body = None;
    for coding in encoding.rsplit(',').map(str::trim).filter(|c| !c.is_empty()) {
        let from = body.as_deref().unwrap_or(bytes);
        body = Some(decode_one(coding, from, limit)?);
    }
    match body {
        Some(body) => Some(body),
        None => (bytes.len() <= limit).then(|| bytes.to_vec()),
    }
}

fn decode_one(coding: &str, bytes: &[u8], limit: usize) -> Option<Vec<u8>> {
    match coding.to_ascii_lowercase().as_str() {
        "gzip" | "x-gzip" => read(MultiGzDecoder::new(bytes), limit),
        // The name means zlib, but some servers send bare deflate.
        "deflate" => {
            read(ZlibDecoder::new(bytes), limit).or_else(|| read(DeflateDecoder::new(bytes), limit))
        }
        "br" => read(brotli::Decompressor::new(bytes, BROTLI_BUFFER_BYTES), limit),
        "identity" => read(bytes, limit),
        _ => None,
    }
}

fn read(decoder: impl Read, limit: usize) -> Option<Vec<u8>> {
    let bound = u64::try_from(limit).ok()?.checked_add(1)?;
    let mut out = Vec::new();
    decoder.take(bound).read_to_end(&mut out).ok()?;
    (out.len() <= limit).then_some(out)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};

    use super::*;

    const TEXT: &[u8] = br#"{"code":"PGRST205","message":"Could not find the table"}"#;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn brotli(bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        brotli::CompressorWriter::new(&mut out, 4096, 5, 20).write_all(bytes).unwrap();
        out
    }

    #[test]
    fn every_encoding_reads_back() {
        let mut zlib = ZlibEncoder::new(Vec::new(), Compression::fast());
        zlib.write_all(TEXT).unwrap();
        let mut bare = DeflateEncoder::new(Vec::new(), Compression::fast());
        bare.write_all(TEXT).unwrap();
        for (encoding, bytes) in [
            ("gzip", gzip(TEXT)),
            ("X-GZIP", gzip(TEXT)),
            ("deflate", zlib.finish().unwrap()),
            ("deflate", bare.finish().unwrap()),
            ("br", brotli(TEXT)),
            ("identity", TEXT.to_vec()),
            ("", TEXT.to_vec()),
        ] {
            assert_eq!(decode(encoding, &bytes, TEXT.len()).as_deref(), Some(TEXT), "{encoding}");
            assert_eq!(decode(encoding, &bytes, TEXT.len() - 1), None, "{encoding}: the limit");
        }
        // A list is undone from its end; what is between counts against the limit too.
        assert_eq!(decode("gzip, br", &brotli(&gzip(TEXT)), 1000).as_deref(), Some(TEXT));
        assert_eq!(decode("gzip, br", &brotli(&gzip(TEXT)), TEXT.len()), None);
        assert_eq!(decode("zstd", TEXT, 1000), None);
        assert_eq!(decode("gzip", TEXT, 1000), None);
        assert_eq!(decode("gzip", &gzip(TEXT)[..20], 1000), None);
    }

    #[test]
    fn a_bomb_stops_at_the_limit() {
        let zeroes = vec![0; 50_000_000];
        for (encoding, bomb) in [("gzip", gzip(&zeroes)), ("br", brotli(&zeroes))] {
            assert!(bomb.len() < 100_000, "{encoding}");
            assert_eq!(decode(encoding, &bomb, 65_536), None, "{encoding}");
        }
    }
}
