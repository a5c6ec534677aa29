//! The binary `psp`.

fn main() {}
