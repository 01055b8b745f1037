//! What an HTTP/2 client sends beside its requests, counted frame by frame. Pure: bytes in, verdict out.
//!
//! Frames that carry nothing (PING, SETTINGS, WINDOW_UPDATE, PRIORITY, RST_STREAM, an empty DATA) cost their sender some bytes, and a worker the
//! time of looking at each and perhaps of answering it. What they could take of its memory is bounded by h2; here it is their number
//! (CVE-2019-9512, 9513, 9515, 9518; RFC 9113 10.5). Requests and the bytes of their bodies have limits of their own.

use std::time::Duration;

/// More frames that carry nothing than a connection may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many frames that carry nothing")]
pub struct Flood;

/// So many seconds' worth may come at once.
const AT_ONCE: u32 = 10;

/// A client that reads an answer says so with frames that carry nothing: it may send one more for so many bytes that it was sent.
const BYTES_PER_FRAME: usize = 256;

/// Bytes of a frame's head (RFC 9113 4.1).
const HEAD: usize = 9;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const END_STREAM: u8 = 1;

/// Follows the frames of one connection.
#[derive(Debug)]
pub struct Meter {
    head: [u8; HEAD],
    /// Bytes of the head that are here.
    known: usize,
    /// Bytes of the payload that are still to come.
    payload: usize,
    /// Frames that may come before the age is asked for.
    left: u32,
    per_second: u32,
    /// Up to here what it earned has been given to it.
    since: Duration,
    /// Bytes that were written and have not made a frame yet.
    written: usize,
}

impl Meter {
    /// A connection that begins with so many bytes that are no frame: the preface. `per_second`: frames that carry nothing.
    #[must_use]
    pub const fn new(per_second: u32, preface: usize) -> Self {
        let left = per_second.saturating_mul(AT_ONCE);
        let since = Duration::ZERO;
        Self { head: [0; HEAD], known: 0, payload: preface, left, per_second, since, written: 0 }
    }

    /// Looks at what was read, and answers how many of the frames that began there carry nothing. `age`, of the connection, is asked for when
    /// what may come at once is used up.
    ///
    /// # Errors
    /// [`Flood`].
    pub fn read(&mut self, bytes: &[u8], age: impl Fn() -> Duration) -> Result<usize, Flood> {
        let (mut rest, mut idle) = (bytes, 0);
        while !rest.is_empty() {
            let skipped = self.payload.min(rest.len());
            self.payload -= skipped;
            rest = rest.get(skipped..).unwrap_or_default();
            let free = self.head.get_mut(self.known..).unwrap_or_default();
            let taken = free.len().min(rest.len());
            let (of_head, behind) = rest.split_at(taken);
            for (place, byte) in free.iter_mut().zip(of_head) {
                *place = *byte;
            }
            self.known += taken;
            rest = behind;
            if self.known == HEAD {
                idle += usize::from(self.is_idle(&age)?);
            }
        }
        Ok(idle)
    }

    /// A frame's head is whole: whether it carries nothing.
    fn is_idle(&mut self, age: &impl Fn() -> Duration) -> Result<bool, Flood> {
        let [a, b, c, kind, flags, ..] = self.head;
        let length = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        self.known = 0;
        self.payload = length;
        let carries = match kind {
            DATA => length > 0 || flags & END_STREAM != 0,
            kind => kind == HEADERS,
        };
        if carries {
            return Ok(false);
        }
        if self.left == 0 {
            self.refill(age());
        }
        self.left = self.left.checked_sub(1).ok_or(Flood)?;
        Ok(true)
    }

    fn refill(&mut self, age: Duration) {
        let elapsed = age.saturating_sub(self.since).as_micros();
        let earned = elapsed.saturating_mul(u128::from(self.per_second)) / 1_000_000;
        if earned > 0 {
            self.since = age;
            let most = self.per_second.saturating_mul(AT_ONCE);
            self.left = u32::try_from(earned).unwrap_or(most).min(most);
        }
    }

    /// Bytes were written.
    pub fn wrote(&mut self, bytes: usize) {
        self.written += bytes;
        let earned = u32::try_from(self.written / BYTES_PER_FRAME).unwrap_or(u32::MAX);
        self.written %= BYTES_PER_FRAME;
        let most = self.per_second.saturating_mul(AT_ONCE);
        self.left = self.left.saturating_add(earned).min(most);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let [_, a, b, c] = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&[a, b, c, kind, flags, 0, 0, 0, 1], payload].concat()
    }

    /// How many of the frames carry nothing, read in pieces at one moment.
    fn passed(
        meter: &mut Meter,
        bytes: &[u8],
        piece: usize,
        age: Duration,
    ) -> Result<usize, Flood> {
        bytes.chunks(piece).map(|piece| meter.read(piece, || age)).sum()
    }

    #[test]
    fn frames_that_carry_nothing_are_counted_however_they_come() {
        let begun = Duration::ZERO;
        for (kind, flags, payload) in [
            (0, 0, &[][..]),
            (2, 0, &[0; 5]),
            (3, 0, &[0; 4]),
            (4, 0, &[]),
            (6, 0, &[0; 8]),
            (8, 0, &[0; 4]),
            (9, 0, &[0; 20]),
            (99, 0, &[0; 7]),
        ] {
            let one = frame(kind, flags, payload);
            for piece in [1, 5, 9, 100, usize::MAX] {
                let mut meter = Meter::new(3, 24);
                let many = [vec![b'P'; 24], one.repeat(30)].concat();
                assert_eq!(passed(&mut meter, &many, piece, begun), Ok(30), "{kind} {piece}");
                assert_eq!(passed(&mut meter, &one, piece, begun), Err(Flood), "{kind} {piece}");
            }
        }
    }

    #[test]
    fn requests_and_bodies_are_not() {
        let begun = Duration::ZERO;
        let mut meter = Meter::new(1, 0);
        for (kind, flags, payload) in [(1, 4, &[0; 50][..]), (0, 0, b"x"), (0, 1, b""), (1, 5, b"")]
        {
            let many = frame(kind, flags, payload).repeat(1000);
            assert_eq!(passed(&mut meter, &many, 17, begun), Ok(0), "{kind}");
        }
    }

    #[test]
    fn time_and_what_was_written_earn_more() {
        let begun = Duration::ZERO;
        // Without a payload, so that a flood ends where the next frame begins.
        let one = frame(4, 0, &[]);
        let mut meter = Meter::new(100, 0);
        assert_eq!(passed(&mut meter, &one.repeat(1000), 64, begun), Ok(1000));
        let later = begun + Duration::from_millis(500);
        assert_eq!(passed(&mut meter, &one.repeat(50), 64, later), Ok(50));
        assert_eq!(passed(&mut meter, &one, 64, later), Err(Flood));
        for _ in 0..10 {
            meter.wrote(BYTES_PER_FRAME / 2);
        }
        assert_eq!(passed(&mut meter, &one.repeat(5), 64, later), Ok(5));
        assert_eq!(passed(&mut meter, &one, 64, later), Err(Flood));
        // However long it was silent, it may not send more than this at once.
        let much_later = begun + Duration::from_secs(1_000_000);
        assert_eq!(passed(&mut meter, &one.repeat(1000), 64, much_later), Ok(1000));
        assert_eq!(passed(&mut meter, &one, 64, much_later), Err(Flood));
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(bytes in prop::collection::vec(any::<u8>(), 0..400), piece in 1_usize..50, preface in 0_usize..30) {
            let begun = Duration::ZERO;
            let (mut whole, mut cut) = (Meter::new(1, preface), Meter::new(1, preface));
            prop_assert_eq!(whole.read(&bytes, || begun), passed(&mut cut, &bytes, piece, begun));
        }
    }
}
