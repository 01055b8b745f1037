//! What must hold of any bytes in a tunnel: for the fuzzer, and for the property beside the code.

use super::{FrameTooLarge, Frames, OPCODE_CLOSE};

/// Follows any bytes, at once and in pieces, and beside them a reader that knows nothing but RFC 6455 5.2: frames end in the same places,
/// the first that is too long is the same one, and the next border is where it says.
///
/// # Errors
/// The law that was broken.
pub fn laws(bytes: &[u8]) -> Result<(), String> {
    let [size, limit, text @ ..] = bytes else { return Ok(()) };
    let (size, limit) = (usize::from(*size) + 1, u64::from(*limit) * 8);
    let plain = plain(text, limit);
    let mut whole = Frames::default();
    let verdict = whole.advance(text, limit);
    if verdict != plain.verdict {
        return Err(format!("{verdict:?}, and to a plain reader {:?}", plain.verdict));
    }
    if verdict.is_ok()
        && (whole.is_between(), whole.has_closed()) != (plain.is_between, plain.closed)
    {
        return Err(format!("{whole:?} is not {plain:?}"));
    }
    let (mut pieces, mut passed) = (Frames::default(), 0);
    for piece in text.chunks(size) {
        let next = plain.ends.iter().find(|end| **end >= passed).map(|end| end - passed);
        let next = next.filter(|next| *next <= piece.len());
        // A frame that is too long ends nothing: what stands behind it is not looked at.
        if plain.verdict.is_ok() && pieces.boundary_in(piece) != next {
            return Err(format!("a border at {:?}, not {next:?}", pieces.boundary_in(piece)));
        }
        match pieces.advance(piece, limit) {
            Ok(()) => passed += piece.len(),
            Err(refused) if verdict == Err(refused) => return Ok(()),
            Err(refused) => return Err(format!("{refused} in pieces, {verdict:?} at once")),
        }
        if pieces.is_between() != plain.ends.contains(&passed) {
            return Err(format!("at {passed}: {pieces:?}, and borders at {:?}", plain.ends));
        }
    }
    if verdict.is_err() { Err("in pieces no frame is too long".to_owned()) } else { Ok(()) }
}

#[derive(Debug)]
struct Plain {
    verdict: Result<(), FrameTooLarge>,
    /// Where no frame is open; 0 is such a place.
    ends: Vec<usize>,
    is_between: bool,
    closed: bool,
}

/// The simplest reader of frames, of bytes that are all there.
fn plain(text: &[u8], limit: u64) -> Plain {
    let mut plain = Plain { verdict: Ok(()), ends: vec![0], is_between: true, closed: false };
    let mut at = 0;
    while let Some((length, end, opcode)) = plain_frame(text, at) {
        if length > limit {
            plain.verdict = Err(FrameTooLarge { length });
            return plain;
        }
        plain.closed |= opcode == OPCODE_CLOSE;
        let Some(end) = end.filter(|end| *end <= text.len()) else {
            plain.is_between = false;
            return plain;
        };
        plain.ends.push(end);
        at = end;
    }
    plain.is_between = at == text.len();
    plain
}

/// Length of the payload, where the frame ends if a text can be so long, and its opcode; `None` for half a header.
fn plain_frame(text: &[u8], at: usize) -> Option<(u64, Option<usize>, u8)> {
    let head = text.get(at..at + 2)?;
    let mask = if head[1] & 0x80 == 0 { 0 } else { 4 };
    let (length, start) = match head[1] & 0x7f {
        126 => (u64::from(u16::from_be_bytes(text.get(at + 2..at + 4)?.try_into().ok()?)), at + 4),
        127 => (u64::from_be_bytes(text.get(at + 2..at + 10)?.try_into().ok()?), at + 10),
        short => (u64::from(short), at + 2),
    };
    let end = usize::try_from(length)
        .ok()
        .and_then(|length| start.checked_add(mask)?.checked_add(length));
    Some((length, end, head[0] & 0x0f))
}
