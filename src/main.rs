//! The `bouncert` binary.

use std::process::ExitCode;

use tikv_jemallocator::Jemalloc;

/// Gives memory back, and leaves few holes between what is small and stays and what is large and goes.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

fn main() -> ExitCode {
    bouncert::cli::main()
}
