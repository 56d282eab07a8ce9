//! How often: token buckets in shared memory.
