//! The `bouncert` binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    bouncert::cli::main()
}
