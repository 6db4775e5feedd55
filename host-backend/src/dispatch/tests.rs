//! The engine against a real store and real sessions' queues.
