//! The names that `-e` takes.

/// The hypercalls of x86, as in Xen's `public/xen.h`.
pub const HYPERCALLS: [&str; 40] = [
    "set_trap_table",
    "mmu_update",
    "set_gdt",
    "stack_switch",
    "set_callbacks",
    "fpu_taskswitch",
    "platform_op",
    "set_debugreg",
    "get_debugreg",
    "update_descriptor",
    "memory_op",
    "multicall",
    "update_va_mapping",
    "set_timer_op",
    "xen_version",
    "console_io",
    "grant_table_op",
    "vm_assist",
    "update_va_mapping_otherdomain",
    "iret",
    "vcpu_op",
    "set_segment_base",
    "mmuext_op",
    "xsm_op",
    "nmi_op",
    "sched_op",
    "callback_op",
    "xenoprof_op",
    "event_channel_op",
    "physdev_op",
    "hvm_op",
    "sysctl",
    "domctl",
    "kexec_op",
    "tmem_op",
    "argo_op",
    "xenpmu_op",
    "dm_op",
    "hypfs_op",
    "mca",
];

/// The operations that the image of this repository uses, by the words of its trace.
pub const OPERATIONS: [&str; 51] = [
    "increase_reservation",
    "decrease_reservation",
    "populate_physmap",
    "exchange",
    "add_to_physmap",
    "memory_map",
    "machphys_mapping",
    "maximum_ram_page",
    "current_reservation",
    "maximum_reservation",
    "m2p",
    "mixed",
    "pin_l1",
    "pin_l2",
    "pin_l3",
    "pin_l4",
    "unpin",
    "clear_page",
    "tlb_flush_local",
    "tlb_flush_all",
    "invlpg_local",
    "invlpg_all",
    "version",
    "extraversion",
    "get_features",
    "yield",
    "block",
    "poll",
    "shutdown",
    "suspend",
    "initialise",
    "up",
    "down",
    "is_up",
    "get_runstate_info",
    "register_vcpu_info",
    "register_runstate_memory_area",
    "stop_singleshot_timer",
    "bind_ipi",
    "bind_virq",
    "alloc_unbound",
    "close",
    "send",
    "unmask",
    "set_param",
    "get_param",
    "flush_tlbs",
    "get_mem_type",
    "set_iopl",
    "gs_kernel",
    "write",
];

#[cfg(test)]
mod tests {
    use hypercall::trace::Hypercall;

    use super::HYPERCALLS;

    /// The program has a list of its own, so that it builds where the crate `hypercall` does not.
    #[test]
    fn the_hypercalls_are_those_that_a_kernel_prints() {
        assert!(Hypercall::all().map(Hypercall::name).eq(HYPERCALLS));
    }
}
