//! Migrations are read by a macro that cargo can't see through.

fn main() {
    println!("cargo:rerun-if-changed=migrations");
}
