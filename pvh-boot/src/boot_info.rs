//! What the entries pass to the kernel, and the macro that names the kernel.

use xen_sys::start_info;

/// The kind of guest that Xen started, and the address of its start info.
///
/// The entries have not read the start info. The readers in [`start_info`](crate::start_info) check
/// every field of it.
///
/// The enum is exhaustive: a kernel must handle each kind, so a new kind is a breaking change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BootInfo {
    /// A PV guest. It runs on the page tables of the domain builder.
    Pv {
        /// Virtual address of `struct start_info`.
        ///
        /// Xen passes it in `rsi`
        /// (`xen/include/public/xen.h`, "Start-of-day memory layout").
        start_info: *const start_info,
    },
    /// A PVH guest. It runs on the page tables of this crate.
    Pvh {
        /// Physical address of `struct hvm_start_info`.
        ///
        /// Xen passes it in `ebx`
        /// (`docs/misc/pvh.pandoc`). The boot page tables map it at this address plus
        /// [`LINEAR_BASE`](crate::layout::LINEAR_BASE).
        start_info: u32,
    },
}

/// Makes a `fn(BootInfo) -> !` the kernel that both entries call.
///
/// ```
/// fn kernel(boot: pvh_boot::BootInfo) -> ! {
///     loop {}
/// }
///
/// pvh_boot::entry!(kernel);
/// ```
///
/// The entries call the function once, on the boot stack and on vCPU 0. Event delivery (PV) and
/// interrupts (PVH) are still off. A kernel uses the macro exactly once. Without a
/// use, or with two, the kernel does not build.
///
/// For a target other than `target_os = "none"`, the macro only checks the type of the function.
#[macro_export]
macro_rules! entry {
    ($main:path) => {
        const _: () = {
            const MAIN: fn($crate::BootInfo) -> ! = $main;

            #[cfg(target_os = "none")]
            #[unsafe(no_mangle)]
            extern "Rust" fn __pvh_boot_main(boot: $crate::BootInfo) -> ! {
                MAIN(boot)
            }

            #[cfg(target_os = "none")]
            #[used]
            static ENTRIES: (
                unsafe extern "C" fn() -> !,
                unsafe extern "C" fn() -> !,
                &'static u8,
            ) = (
                $crate::anchors::pvh_boot_pv_entry,
                $crate::anchors::pvh_boot_pvh_entry,
                // SAFETY: `notes` defines the symbol as the first byte of a read-only section, so it
                // is initialised, aligned as a `u8`, and never written.
                unsafe { &$crate::anchors::NOTES },
            );

            #[cfg(not(target_os = "none"))]
            const _: fn($crate::BootInfo) -> ! = MAIN;
        };
    };
}

#[cfg(any(target_os = "none", doc))]
unsafe extern "Rust" {
    /// The kernel's function. [`entry!`](crate::entry) defines the symbol.
    fn __pvh_boot_main(boot: BootInfo) -> !;
}

/// Calls the kernel's function.
#[cfg(any(target_os = "none", doc))]
pub(crate) fn call_kernel(boot: BootInfo) -> ! {
    // SAFETY: `entry!` defines this symbol with this signature, and the function that it wraps is
    // safe. Without a definition the kernel does not link.
    unsafe { __pvh_boot_main(boot) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn main(boot: BootInfo) -> ! {
        panic!("{boot:?}")
    }
    entry!(main);

    #[test]
    fn the_two_kinds_of_guest_differ() {
        let pvh = BootInfo::Pvh { start_info: 0x1000 };
        assert_ne!(pvh, BootInfo::Pv { start_info: core::ptr::null() });
        assert!(std::panic::catch_unwind(|| main(pvh)).is_err());
    }
}
