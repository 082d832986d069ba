//! The flags of both kinds of start info.

/// The `SIF_…` flags of a domain (`xen/include/public/xen.h`).
///
/// A later Xen may set further bits. [`bits`](Self::bits) returns them, and the readers accept them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StartFlags(u32);

impl StartFlags {
    /// Wraps the flags of a start info, as Xen wrote them.
    pub const fn new(bits: u32) -> Self {
        Self(bits)
    }

    /// Returns the flags as Xen wrote them.
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// Returns true if the domain may make privileged hypercalls (`SIF_PRIVILEGED`).
    pub const fn privileged(self) -> bool {
        self.0 & xen_sys::SIF_PRIVILEGED != 0
    }

    /// Returns true if the domain is dom0, the first domain (`SIF_INITDOMAIN`).
    pub const fn initial_domain(self) -> bool {
        self.0 & xen_sys::SIF_INITDOMAIN != 0
    }

    /// Returns true if the module starts with a list of modules (`SIF_MULTIBOOT_MOD`).
    pub const fn multiboot_module(self) -> bool {
        self.0 & xen_sys::SIF_MULTIBOOT_MOD != 0
    }

    /// Returns true if the module of a PV guest has a PFN (`SIF_MOD_START_PFN`).
    ///
    /// The domain builder has not mapped such a module. Otherwise the module has a virtual address.
    pub const fn module_by_frame(self) -> bool {
        self.0 & xen_sys::SIF_MOD_START_PFN != 0
    }

    /// Returns true if the P2M may be virtually mapped (`SIF_VIRT_P2M_4TOOLS`).
    ///
    /// The toolstack of the machine can read such a P2M when it saves the domain.
    pub const fn tools_know_virtual_p2m(self) -> bool {
        self.0 & xen_sys::SIF_VIRT_P2M_4TOOLS != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_flag_is_one_bit_of_the_header() {
        let readers: [fn(StartFlags) -> bool; 5] = [
            StartFlags::privileged,
            StartFlags::initial_domain,
            StartFlags::multiboot_module,
            StartFlags::module_by_frame,
            StartFlags::tools_know_virtual_p2m,
        ];
        for bit in 0..32 {
            let flags = StartFlags::new(1 << bit);
            assert_eq!(flags.bits(), 1 << bit);
            for (of, reader) in readers.iter().enumerate() {
                assert_eq!(reader(flags), of == bit, "bit {bit}, reader {of}");
            }
        }
    }
}
