//! The numbers and names of all hypercalls.

macro_rules! hypercalls {
    ($($variant:ident $number:literal $name:literal,)*) => {
        /// A hypercall of x86 Xen, by its name in `public/xen.h`.
        ///
        /// The list is complete, so code that issues another hypercall finds its name here.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[non_exhaustive]
        #[expect(missing_docs, reason = "each is the hypercall of its name in public/xen.h")]
        pub enum Hypercall {
            $($variant,)*
        }

        impl Hypercall {
            const ALL: &[Self] = &[$(Self::$variant,)*];
            const NAMES: &[&str] = &[$($name,)*];

            /// Returns the hypercall with this number, `__HYPERVISOR_*`.
            pub const fn from_number(number: u64) -> Option<Self> {
                match number {
                    $($number => Some(Self::$variant),)*
                    _ => None,
                }
            }
        }
    };
}

hypercalls! {
    SetTrapTable 0 "set_trap_table",
    MmuUpdate 1 "mmu_update",
    SetGdt 2 "set_gdt",
    StackSwitch 3 "stack_switch",
    SetCallbacks 4 "set_callbacks",
    FpuTaskswitch 5 "fpu_taskswitch",
    PlatformOp 7 "platform_op",
    SetDebugreg 8 "set_debugreg",
    GetDebugreg 9 "get_debugreg",
    UpdateDescriptor 10 "update_descriptor",
    MemoryOp 12 "memory_op",
    Multicall 13 "multicall",
    UpdateVaMapping 14 "update_va_mapping",
    SetTimerOp 15 "set_timer_op",
    XenVersion 17 "xen_version",
    ConsoleIo 18 "console_io",
    GrantTableOp 20 "grant_table_op",
    VmAssist 21 "vm_assist",
    UpdateVaMappingOtherdomain 22 "update_va_mapping_otherdomain",
    Iret 23 "iret",
    VcpuOp 24 "vcpu_op",
    SetSegmentBase 25 "set_segment_base",
    MmuExtOp 26 "mmuext_op",
    XsmOp 27 "xsm_op",
    NmiOp 28 "nmi_op",
    SchedOp 29 "sched_op",
    CallbackOp 30 "callback_op",
    XenoprofOp 31 "xenoprof_op",
    EventChannelOp 32 "event_channel_op",
    PhysdevOp 33 "physdev_op",
    HvmOp 34 "hvm_op",
    Sysctl 35 "sysctl",
    Domctl 36 "domctl",
    KexecOp 37 "kexec_op",
    TmemOp 38 "tmem_op",
    ArgoOp 39 "argo_op",
    XenpmuOp 40 "xenpmu_op",
    DmOp 41 "dm_op",
    HypfsOp 42 "hypfs_op",
    Mca 48 "mca",
}

impl Hypercall {
    /// The number of hypercalls in this list.
    pub const COUNT: usize = Self::NAMES.len();

    /// Returns the name in `public/xen.h`, without `__HYPERVISOR_`.
    pub const fn name(self) -> &'static str {
        Self::NAMES[self as usize]
    }

    /// Returns the hypercall with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::all().find(|hypercall| hypercall.name() == name)
    }

    /// Iterates over all hypercalls, in the order of their numbers.
    pub fn all() -> impl Iterator<Item = Self> {
        Self::ALL.iter().copied()
    }
}
