//! The repository on this host: restored, kept, floors, standing.
