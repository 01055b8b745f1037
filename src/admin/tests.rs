//! The admin listener asked as a whole, with the real writer on a directory of its own.
