//! Memory that a worker lends to whichever of its connections is reading or writing at this moment, so that thousands of idle ones
//! hold none.

use std::cell::RefCell;

/// Bytes that one read of a head can bring. Heads are mostly shorter, and what comes behind one in the same read is used as well.
const SCRATCH: usize = 16 * 1024;

/// Written buffers that are kept for the next message, and the largest that is.
const KEPT: usize = 64;
const LARGEST_KEPT: usize = 32 * 1024;

thread_local! {
    static SCRATCH_SPACE: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH].into_boxed_slice());
    static WRITTEN: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// Lends the space that this thread reads into. What stands in it is gone when the next connection reads.
pub(super) fn scratch<T>(read: impl FnOnce(&mut [u8]) -> T) -> T {
    SCRATCH_SPACE.with(|space| match space.try_borrow_mut() {
        Ok(mut space) => read(&mut space),
        // A stream that reads another one while it is read: none here does, and it would be right all the same.
        Err(_) => read(&mut vec![0; SCRATCH]),
    })
}

/// An empty buffer to write a message into.
pub(super) fn take() -> Vec<u8> {
    WRITTEN.with_borrow_mut(Vec::pop).unwrap_or_default()
}

/// Gives it back, whatever stands in it.
pub(super) fn give(mut buffer: Vec<u8>) {
    if buffer.capacity() == 0 || buffer.capacity() > LARGEST_KEPT {
        return;
    }
    buffer.clear();
    WRITTEN.with_borrow_mut(|kept| {
        if kept.len() < KEPT {
            kept.push(buffer);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_given_back_is_taken_again_and_empty() {
        let mut buffer = take();
        buffer.extend_from_slice(b"secret");
        let address = buffer.as_ptr();
        give(buffer);
        let again = take();
        assert_eq!((again.as_ptr(), again.len()), (address, 0));
    }

    #[test]
    fn large_buffers_and_too_many_are_not_kept() {
        give(Vec::with_capacity(LARGEST_KEPT + 1));
        for _ in 0..2 * KEPT {
            give(Vec::with_capacity(16));
        }
        let kept = std::iter::repeat_with(take).take_while(|buffer| buffer.capacity() > 0);
        assert_eq!(kept.inspect(|buffer| assert!(buffer.capacity() <= LARGEST_KEPT)).count(), KEPT);
    }
}
