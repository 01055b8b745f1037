//! Tells whoever started the process how far it is (`NOTIFY_SOCKET`, as sd_notify(3) says): so that a start is over when requests are
//! served, and not before.

use std::io;
use std::os::unix::net::UnixDatagram;

/// Says that requests are served.
pub(super) const READY: &str = "READY=1";
/// Says that the end has begun.
pub(super) const STOPPING: &str = "STOPPING=1";

/// Says `state` to the socket, if there is one. Nothing depends on its being heard.
pub(super) fn tell(socket: Option<&str>, state: &str) {
    let Some(socket) = socket.filter(|socket| !socket.is_empty()) else { return };
    if let Err(error) = send(socket, state) {
        tracing::warn!(%error, socket, state, "the service manager can't be told");
    }
}

fn send(socket: &str, state: &str) -> io::Result<()> {
    let own = UnixDatagram::unbound()?;
    #[cfg(target_os = "linux")]
    if let Some(name) = socket.strip_prefix('@') {
        use std::os::linux::net::SocketAddrExt as _;
        let address = std::os::unix::net::SocketAddr::from_abstract_name(name)?;
        return own.send_to_addr(state.as_bytes(), &address).map(|_| ());
    }
    own.send_to(state.as_bytes(), socket).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_arrives_and_nobody_is_no_fault() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let heard = UnixDatagram::bind(&path).unwrap();
        tell(path.to_str(), READY);
        let mut bytes = [0; 64];
        let length = heard.recv(&mut bytes).unwrap();
        assert_eq!(&bytes[..length], READY.as_bytes());
        assert!(send("/no/such/socket", STOPPING).is_err());
        tell(None, STOPPING);
        tell(Some(""), STOPPING);
    }
}
