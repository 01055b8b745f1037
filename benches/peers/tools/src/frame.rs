//! WebSocket frames, as little of them as the bench needs: whole, unfragmented, up to 65,535 bytes.

pub const TEXT: u8 = 0x81;
pub const BINARY: u8 = 0x82;

/// Bytes of the header before mask and payload, and of the payload; nothing while the header is not whole, or too long for us.
fn lengths(bytes: &[u8]) -> Option<(usize, usize)> {
    match bytes.get(1)? & 127 {
        126 => Some((4, usize::from(u16::from_be_bytes([*bytes.get(2)?, *bytes.get(3)?])))),
        127 => None,
        length => Some((2, usize::from(length))),
    }
}

/// Bytes of the whole frame that a server sent, once it is whole.
pub fn whole_of_server(bytes: &[u8]) -> Option<usize> {
    let (head, length) = lengths(bytes)?;
    (bytes.len() >= head + length).then_some(head + length)
}

/// First byte and unmasked payload of a client's frame, and the bytes that it took, once it is whole.
pub fn of_client(bytes: &[u8]) -> Option<(u8, Vec<u8>, usize)> {
    let (head, length) = lengths(bytes)?;
    let mask = bytes.get(head..head + 4)?;
    let payload = bytes.get(head + 4..head + 4 + length)?;
    let plain = payload.iter().enumerate().map(|(at, byte)| byte ^ mask[at & 3]).collect();
    Some((bytes[0], plain, head + 4 + length))
}

/// Puts a frame of a server behind `out`.
pub fn of_server(first: u8, payload: &[u8], out: &mut Vec<u8>) {
    head(first, payload.len(), 0, out);
    out.extend_from_slice(payload);
}

/// A client's frame. The mask is zero: it is there, and costs whoever takes it off as much as any other.
pub fn client(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    head(first, payload.len(), 0x80, &mut out);
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(payload);
    out
}

fn head(first: u8, length: usize, masked: u8, out: &mut Vec<u8>) {
    out.push(first);
    match u8::try_from(length) {
        Ok(length @ ..126) => out.push(masked | length),
        _ => {
            out.push(masked | 126);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
    }
}
