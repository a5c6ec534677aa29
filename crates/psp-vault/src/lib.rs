//! Seals cards with AES-256-GCM under a key from the environment or a key file.
