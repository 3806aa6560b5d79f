//! The `keyward` program; see the library for everything it does.

use std::process::ExitCode;

fn main() -> ExitCode {
    keyward::cli::main()
}
