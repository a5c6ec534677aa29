//! The binary `psp-bench`.

fn main() {}
