//! Hands the linker script to the linker, and compiles the C code of the self-tests.

use std::env;

fn main() {
    println!("cargo:rerun-if-changed=image.ld");
    let package = env::var("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR");
    println!("cargo:rustc-link-arg-bin=xen-contig=-T{package}/image.ld");
    compile();
}

/// Compiles C as this image needs it: without a library, without registers that interrupts do not save, and for
/// addresses in the upper 2 GiB. The host's compiler serves, because the image is for the same processor.
fn compile() {
    const DRIVER: &str = "../tests/c/program";
    const HEADER: &str = "../c/include";
    const ENTRY: &str = "src/selftest/c_interface/hypercall.c";
    for path in [DRIVER, HEADER, ENTRY] {
        println!("cargo:rerun-if-changed={path}");
    }
    let flags = [
        "-std=c99",
        "-O2",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-ffreestanding",
        "-fno-pic",
        "-fno-pie",
        "-fno-stack-protector",
        "-fno-asynchronous-unwind-tables",
        "-fno-omit-frame-pointer",
        "-ffunction-sections",
        "-mno-red-zone",
        "-mgeneral-regs-only",
        "-mcmodel=kernel",
    ];
    cc::Build::new()
        .compiler("cc")
        .archiver("ar")
        .no_default_flags(true)
        .inherit_rustflags(false)
        .flags(flags)
        .include(HEADER)
        .include(DRIVER)
        .files([format!("{DRIVER}/selftest.c"), format!("{DRIVER}/stack.c"), ENTRY.to_owned()])
        .compile("c_interface");
}
