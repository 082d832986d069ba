//! Hands the linker script to the linker.

fn main() {
    println!("cargo:rerun-if-changed=image.ld");
    let package = std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR");
    println!("cargo:rustc-link-arg-bin=xen-contig=-T{package}/image.ld");
}
