//! Profiles and workloads that travel inside the binary.

include!(concat!(env!("OUT_DIR"), "/embedded.rs"));
