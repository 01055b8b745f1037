//! Tables over tokens and keys of all kinds.
