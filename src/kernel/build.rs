//! Hands the linker script to the linker, for the kernel image alone.

fn main() {
    println!("cargo:rerun-if-changed=src/kernel/image.ld");
    if std::env::var_os("CARGO_FEATURE_KERNEL").is_some() {
        let root = std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR");
        println!("cargo:rustc-link-arg-bin=xen-contig=-T{root}/src/kernel/image.ld");
    }
}
