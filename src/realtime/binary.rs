//! Binary frames of vsn 2.0.0: only what says where they belong is read, nothing is copied, nothing is changed
//! (`supabase-wire.md` 4.2, trap 24).

/// What the header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header<'a> {
    /// The topic.
    pub(super) topic: &'a str,
    /// The ref; empty in kinds that have none.
    pub(super) reference: &'a str,
    /// Whether it answers a request.
    pub(super) is_reply: bool,
}

const PUSH: u8 = 0;
const REPLY: u8 = 1;
const BROADCAST: u8 = 2;
const USER_BROADCAST_PUSH: u8 = 3;
const USER_BROADCAST: u8 = 4;

/// Reads a frame of the client's; `None` for a kind that clients do not send, and for lengths that lie.
pub(super) fn from_client(bytes: &[u8]) -> Option<Header<'_>> {
    // Lengths of join_ref, ref, topic, event; kind 3 has those of the metadata and an encoding behind them.
    let fixed = match *bytes.first()? {
        PUSH => 5,
        USER_BROADCAST_PUSH => 7,
        _ => return None,
    };
    let lengths = [length(bytes, 1)?, length(bytes, 2)?, length(bytes, 3)?];
    read(bytes, fixed, &lengths, Some(1), 2, false)
}

/// Reads a frame of a server's; `None` for a kind that servers do not send, and for lengths that lie.
pub(super) fn from_server(bytes: &[u8]) -> Option<Header<'_>> {
    let at = |index| length(bytes, index);
    match *bytes.first()? {
        // Lengths of join_ref, topic, event: a push has no ref on the way down.
        PUSH => read(bytes, 4, &[at(1)?, at(2)?], None, 1, false),
        // Lengths of join_ref, ref, topic, status.
        REPLY => read(bytes, 5, &[at(1)?, at(2)?, at(3)?], Some(1), 2, true),
        // Lengths of topic, event.
        BROADCAST => read(bytes, 3, &[at(1)?], None, 0, false),
        // Lengths of topic, event, metadata; an encoding.
        USER_BROADCAST => read(bytes, 5, &[at(1)?], None, 0, false),
        _ => None,
    }
}

fn length(bytes: &[u8], index: usize) -> Option<usize> {
    bytes.get(index).copied().map(usize::from)
}

/// Cuts the parts that begin at `fixed`.
fn read<'a>(
    bytes: &'a [u8],
    fixed: usize,
    lengths: &[usize],
    reference: Option<usize>,
    topic: usize,
    is_reply: bool,
) -> Option<Header<'a>> {
    let part = |index: usize| {
        let start = fixed + lengths.get(..index)?.iter().sum::<usize>();
        std::str::from_utf8(bytes.get(start..start + lengths.get(index)?)?).ok()
    };
    let reference = match reference {
        Some(index) => part(index)?,
        None => "",
    };
    Some(Header { topic: part(topic)?, reference, is_reply })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header<'a>(topic: &'a str, reference: &'a str) -> Header<'a> {
        Header { topic, reference, is_reply: false }
    }

    #[test]
    fn trap_24_binary_kinds_say_where_they_belong() {
        // As realtime-js writes a broadcast: kind 3, sizes, encoding 1, then join_ref, ref, topic, event, metadata, payload.
        let mut push = vec![3, 1, 2, 10, 3, 0, 1];
        push.extend_from_slice(b"612realtime:ax-y{\"n\":1}");
        assert_eq!(from_client(&push), Some(header("realtime:a", "12")));
        let mut generic = vec![0, 1, 2, 10, 1];
        generic.extend_from_slice(b"612realtime:aedata");
        assert_eq!(from_client(&generic), Some(header("realtime:a", "12")));
        for kind in [1, 2, 4, 5, 255] {
            generic[0] = kind;
            assert_eq!(from_client(&generic), None, "{kind}");
        }

        let mut down = vec![0, 1, 10, 1];
        down.extend_from_slice(b"6realtime:aedata");
        assert_eq!(from_server(&down), Some(header("realtime:a", "")));
        let mut reply = vec![1, 1, 2, 10, 2];
        reply.extend_from_slice(b"612realtime:aokdata");
        let expected = Header { is_reply: true, ..header("realtime:a", "12") };
        assert_eq!(from_server(&reply), Some(expected));
        let mut broadcast = vec![2, 10, 1];
        broadcast.extend_from_slice(b"realtime:aedata");
        assert_eq!(from_server(&broadcast), Some(header("realtime:a", "")));
        let mut user = vec![4, 10, 1, 0, 0];
        user.extend_from_slice(b"realtime:ae\xff\xfe");
        assert_eq!(from_server(&user), Some(header("realtime:a", "")));
    }

    #[test]
    fn lengths_that_lie_are_not_read() {
        // The client's header is longer: here it lies, and the server's would say an empty topic.
        assert_eq!(from_client(&[0, 0, 0, 9, 0, b'a']), None);
        let frames: [&[u8]; 7] = [
            &[],
            &[3],
            &[3, 255, 255, 255, 255, 255, 1],
            &[4, 200, 0, 0, 0, b'a'],
            &[2, 2, 0, 0xff, 0xfe],
            &[1, 1, 1, 1],
            &[9, 0, 0],
        ];
        for bytes in frames {
            assert_eq!(from_client(bytes), None, "{bytes:?}");
            assert_eq!(from_server(bytes), None, "{bytes:?}");
        }
    }
}
