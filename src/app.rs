//! The composition root: from checked settings to listeners, workers and their end.
