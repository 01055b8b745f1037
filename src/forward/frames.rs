//! Where the frames of a WebSocket begin and end (RFC 6455 5.2), without reading them: a close frame may be put between
//! two frames of a tunnel, never into one. Pure: bytes in, position out.

pub mod fuzz;

/// Follows one direction of a WebSocket.
#[derive(Clone, Copy, Debug, Default)]
pub struct Frames {
    header: [u8; 10],
    /// Bytes of the current frame's header seen so far.
    seen: usize,
    /// Bytes of mask and payload still to come.
    left: u64,
    close_began: bool,
}

/// A frame is longer than allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a frame of {length} bytes")]
pub struct FrameTooLarge {
    /// What its header says.
    pub length: u64,
}

const OPCODE_CLOSE: u8 = 0x8;

impl Frames {
    /// Goes through `bytes`.
    ///
    /// # Errors
    /// [`FrameTooLarge`] when a frame's payload is longer than `limit`; the bytes should not be passed on.
    pub fn advance(&mut self, mut bytes: &[u8], limit: u64) -> Result<(), FrameTooLarge> {
        while !bytes.is_empty() {
            if self.left > 0 {
                let step = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
                self.left -= step as u64;
                bytes = bytes.get(step..).unwrap_or_default();
                continue;
            }
            if let (Some(slot), Some(byte)) = (self.header.get_mut(self.seen), bytes.first()) {
                *slot = *byte;
            }
            self.seen += 1;
            bytes = bytes.get(1..).unwrap_or_default();
            if self.seen == self.header_length() {
                self.begin_payload(limit)?;
            }
        }
        Ok(())
    }

    /// The first `n` bytes of `bytes` after which no frame is open; `None` when there is no such place.
    #[must_use]
    pub fn boundary_in(mut self, bytes: &[u8]) -> Option<usize> {
        let mut last = self.is_between().then_some(0);
        for (index, byte) in bytes.iter().enumerate() {
            if last.is_some() {
                break;
            }
            self.advance(std::slice::from_ref(byte), u64::MAX).ok()?;
            last = self.is_between().then_some(index + 1);
        }
        last
    }

    /// Whether no frame is open.
    #[must_use]
    pub fn is_between(&self) -> bool {
        self.seen == 0 && self.left == 0
    }

    /// Whether a close frame has begun: nothing may follow it.
    #[must_use]
    pub fn has_closed(&self) -> bool {
        self.close_began
    }

    /// Length of the header without the mask, as far as it is known.
    fn header_length(&self) -> usize {
        match (self.seen, self.header[1] & 0x7f) {
            (0 | 1, _) => 2,
            (_, 126) => 4,
            (_, 127) => 10,
            _ => 2,
        }
    }

    fn begin_payload(&mut self, limit: u64) -> Result<(), FrameTooLarge> {
        let [first, second, rest @ ..] = self.header;
        let length = match second & 0x7f {
            126 => u64::from(u16::from_be_bytes([rest[0], rest[1]])),
            127 => u64::from_be_bytes(rest),
            short => u64::from(short),
        };
        if length > limit {
            return Err(FrameTooLarge { length });
        }
        self.close_began |= first & 0x0f == OPCODE_CLOSE;
        let mask = if second & 0x80 == 0 { 0 } else { 4 };
        self.left = length.saturating_add(mask);
        self.seen = 0;
        Ok(())
    }
}

/// An unmasked close frame, as a server sends it.
#[must_use]
pub fn close_frame(code: u16) -> [u8; 4] {
    let [high, low] = code.to_be_bytes();
    [0x80 | OPCODE_CLOSE, 2, high, low]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(length: usize, is_masked: bool, opcode: u8) -> Vec<u8> {
        let mask = if is_masked { 0x80 } else { 0 };
        let mut frame = vec![0x80 | opcode];
        match length {
            0..=125 => frame.push(mask | length as u8),
            126..=0xffff => {
                frame.push(mask | 126);
                frame.extend((length as u16).to_be_bytes());
            }
            _ => {
                frame.push(mask | 127);
                frame.extend((length as u64).to_be_bytes());
            }
        }
        frame.extend(vec![0xaa; length + if is_masked { 4 } else { 0 }]);
        frame
    }

    #[test]
    fn the_limit_holds_at_its_edge() {
        for length in [125, 126, 0xffff, 0x1_0000] {
            let bytes = frame(length, true, 2);
            assert_eq!(Frames::default().advance(&bytes, length as u64), Ok(()));
            let refused = FrameTooLarge { length: length as u64 };
            assert_eq!(Frames::default().advance(&bytes, length as u64 - 1), Err(refused));
        }
    }

    #[test]
    fn a_close_frame_is_seen_and_made() {
        let mut frames = Frames::default();
        frames.advance(&frame(5, false, 1), 100).unwrap();
        assert!(!frames.has_closed());
        frames.advance(&close_frame(1012), 100).unwrap();
        assert!(frames.has_closed() && frames.is_between());
    }

    #[test]
    fn the_next_boundary_is_found() {
        let bytes = [frame(3, false, 1), frame(2, false, 1)].concat();
        let mut frames = Frames::default();
        assert_eq!(frames.boundary_in(&bytes), Some(0));
        frames.advance(&bytes[..1], 100).unwrap();
        assert_eq!(frames.boundary_in(&bytes[1..]), Some(4));
        assert_eq!(frames.boundary_in(&bytes[1..3]), None);
    }

    proptest! {
        #[test]
        fn boundaries_are_where_the_frames_were_joined(
            lengths in prop::collection::vec((0_usize..70_000, any::<bool>()), 1..4), piece in 1_usize..5000,
        ) {
            let frames: Vec<Vec<u8>> = lengths.iter().map(|(n, masked)| frame(*n, *masked, 2)).collect();
            let mut ends = Vec::new();
            let mut at = 0;
            for frame in &frames {
                at += frame.len();
                ends.push(at);
            }
            let mut tracker = Frames::default();
            let mut passed = 0;
            for part in frames.concat().chunks(piece) {
                tracker.advance(part, u64::MAX).unwrap();
                passed += part.len();
                prop_assert_eq!(tracker.is_between(), ends.contains(&passed));
            }
        }

        #[test]
        fn the_laws_hold(
            lengths in prop::collection::vec((0_usize..300, any::<bool>(), 0_u8..16), 0..5),
            rest in prop::collection::vec(any::<u8>(), 0..20),
            (size, limit) in any::<(u8, u8)>(),
        ) {
            let frames = lengths.iter().flat_map(|(length, masked, opcode)| frame(*length, *masked, *opcode));
            let bytes: Vec<u8> = [size, limit].into_iter().chain(frames).chain(rest).collect();
            prop_assert_eq!(fuzz::laws(&bytes), Ok(()));
        }

        #[test]
        fn the_laws_hold_for_garbage(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            prop_assert_eq!(fuzz::laws(&bytes), Ok(()));
        }
    }
}
