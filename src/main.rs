//! The `keyward` program; see the library for everything it does.

use std::process::ExitCode;

/// glibc keeps what password hashing frees, 19 MiB a hash and thread: after 200 log-ins at once a process of 15 MiB stood at
/// 550 for good. jemalloc gives it back within ten seconds.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    keyward::cli::main()
}
