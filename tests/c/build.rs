//! Compiles the C program, as strictly as an author of a C kernel may.

fn main() {
    println!("cargo:rerun-if-changed=program");
    println!("cargo:rerun-if-changed=../../c/include");
    cc::Build::new()
        .include("../../c/include")
        .include("program")
        .files(["program/errors.c", "program/kernel.c", "program/selftest.c", "program/stack.c"])
        .std("c99")
        .flag("-pedantic")
        .warnings(true)
        .extra_warnings(true)
        .warnings_into_errors(true)
        .compile("program");
}
