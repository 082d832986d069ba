//! What the entries hand to the kernel, and the macro that names the kernel.

use xen_sys::start_info;

/// In which world the kernel was started, and where its start info lies.
///
/// Nothing here has been read yet: [`start_info`](crate::start_info) judges it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BootInfo {
    /// A PV guest, on the domain builder's page tables.
    Pv {
        /// Virtual address of `struct start_info`, from `rsi`
        /// (`xen/include/public/xen.h`, "Start-of-day memory layout", item 3d).
        start_info: *const start_info,
    },
    /// A PVH guest, on the page tables of this crate.
    Pvh {
        /// Physical address of `struct hvm_start_info`, from `ebx`
        /// (`docs/misc/pvh.pandoc`). It is mapped at
        /// [`LINEAR_BASE`](crate::layout::LINEAR_BASE) plus this.
        start_info: u32,
    },
}

/// Makes a `fn(BootInfo) -> !` the kernel that both entries call.
///
/// ```ignore
/// fn main(boot: pvh_boot::BootInfo) -> ! { loop {} }
/// pvh_boot::entry!(main);
/// ```
///
/// It is called once, on the boot stack, with event delivery (PV) or interrupts
/// (PVH) still off. On a hosted target the macro only checks the type.
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
                // SAFETY: the address alone is taken, of a byte that is never written.
                unsafe { &$crate::anchors::NOTES },
            );

            #[cfg(not(target_os = "none"))]
            const _: fn($crate::BootInfo) -> ! = MAIN;
        };
    };
}

#[cfg(target_os = "none")]
unsafe extern "Rust" {
    /// Defined by [`entry!`](crate::entry) in the kernel.
    fn __pvh_boot_main(boot: BootInfo) -> !;
}

/// Calls the kernel that [`entry!`](crate::entry) named.
#[cfg(target_os = "none")]
pub(crate) fn call_kernel(boot: BootInfo) -> ! {
    // SAFETY: `entry!` is the only documented definition of this symbol and
    // type-checks what it wraps; a missing definition is a link error. Any
    // `BootInfo` is a valid argument.
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
    fn the_worlds_are_told_apart() {
        let pvh = BootInfo::Pvh { start_info: 0x1000 };
        assert_ne!(pvh, BootInfo::Pv { start_info: core::ptr::null() });
        assert!(std::panic::catch_unwind(|| main(pvh)).is_err());
    }
}
