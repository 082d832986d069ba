//! The names of all hypercalls.

macro_rules! hypercalls {
    ($($variant:ident $name:literal,)*) => {
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
            const NAMES: &[&str] = &[$($name,)*];
        }
    };
}

hypercalls! {
    SetTrapTable "set_trap_table",
    MmuUpdate "mmu_update",
    SetGdt "set_gdt",
    StackSwitch "stack_switch",
    SetCallbacks "set_callbacks",
    FpuTaskswitch "fpu_taskswitch",
    PlatformOp "platform_op",
    SetDebugreg "set_debugreg",
    GetDebugreg "get_debugreg",
    UpdateDescriptor "update_descriptor",
    MemoryOp "memory_op",
    Multicall "multicall",
    UpdateVaMapping "update_va_mapping",
    SetTimerOp "set_timer_op",
    XenVersion "xen_version",
    ConsoleIo "console_io",
    GrantTableOp "grant_table_op",
    VmAssist "vm_assist",
    UpdateVaMappingOtherdomain "update_va_mapping_otherdomain",
    Iret "iret",
    VcpuOp "vcpu_op",
    SetSegmentBase "set_segment_base",
    MmuExtOp "mmuext_op",
    XsmOp "xsm_op",
    NmiOp "nmi_op",
    SchedOp "sched_op",
    CallbackOp "callback_op",
    XenoprofOp "xenoprof_op",
    EventChannelOp "event_channel_op",
    PhysdevOp "physdev_op",
    HvmOp "hvm_op",
    Sysctl "sysctl",
    Domctl "domctl",
    KexecOp "kexec_op",
    TmemOp "tmem_op",
    ArgoOp "argo_op",
    XenpmuOp "xenpmu_op",
    DmOp "dm_op",
    HypfsOp "hypfs_op",
    Mca "mca",
}

impl Hypercall {
    /// The number of hypercalls in this list.
    pub const COUNT: usize = Self::NAMES.len();

    /// Returns the name in `public/xen.h`, without `__HYPERVISOR_`.
    pub const fn name(self) -> &'static str {
        Self::NAMES[self as usize]
    }

    pub(crate) fn name_at(index: usize) -> &'static str {
        Self::NAMES[index]
    }
}
