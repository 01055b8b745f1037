//! The admin listener: health, metrics, status, and the number.
