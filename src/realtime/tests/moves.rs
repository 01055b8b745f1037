//! Channels that change hands.
