//! The flags that both kinds of start info share.

/// `SIF_…` flags of `xen/include/public/xen.h`. Unknown bits are kept and ignored:
/// newer Xens may set them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StartFlags(u32);

impl StartFlags {
    /// Takes the field as Xen wrote it.
    pub const fn new(bits: u32) -> Self {
        Self(bits)
    }

    /// The field as Xen wrote it.
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// `SIF_PRIVILEGED`: the domain may make privileged hypercalls.
    pub const fn privileged(self) -> bool {
        self.0 & xen_sys::SIF_PRIVILEGED != 0
    }

    /// `SIF_INITDOMAIN`: the initial control domain, dom0.
    pub const fn initial_domain(self) -> bool {
        self.0 & xen_sys::SIF_INITDOMAIN != 0
    }

    /// `SIF_MULTIBOOT_MOD`: the module begins with a list of modules.
    pub const fn multiboot_module(self) -> bool {
        self.0 & xen_sys::SIF_MULTIBOOT_MOD != 0
    }

    /// `SIF_MOD_START_PFN`: the module is given by frame and is not mapped.
    pub const fn module_by_frame(self) -> bool {
        self.0 & xen_sys::SIF_MOD_START_PFN != 0
    }

    /// `SIF_VIRT_P2M_4TOOLS`: the tools understand a virtually mapped P2M list.
    pub const fn tools_know_virtual_p2m(self) -> bool {
        self.0 & xen_sys::SIF_VIRT_P2M_4TOOLS != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flag_is_its_bit_of_the_header() {
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
