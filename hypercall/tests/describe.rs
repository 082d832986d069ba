//! The words that each call has in a trace.

use hypercall::abi::memory::{
    AddToPhysmap, MachphysMapping, MemoryExchange, MemoryMap, MemoryReservation,
};
use hypercall::abi::vcpu::RunstateInfo;
use hypercall::abi::version::FeatureInfo;
use hypercall::ops::{
    EventChannelOp, GrantTableOp, HvmOp, HvmParamIndex, MemoryOp, MmuExtOp, MmuUpdate,
    MulticallEntry, PhysdevOp, Port, Pte, SchedOp, SegmentBase, ShutdownReason, TrapInfo, UvmFlags,
    VcpuOp, VersionOp,
};
use hypercall::trace::CallRecord;
use hypercall::{Call, DomId, Mfn, PageTableFlags, Pfn, VirtAddr};

/// The words of each call in the trace, which tests and people search for.
#[test]
fn each_call_prints_its_name_and_arguments() {
    let mut reservation = MemoryReservation {
        extent_start: core::ptr::null_mut(),
        nr_extents: 3,
        extent_order: 2,
        mem_flags: 32,
        domid: DomId::SELF,
    };
    let mut exchange = MemoryExchange { input: reservation, output: reservation, nr_exchanged: 1 };
    let place = AddToPhysmap { domid: DomId::SELF, size: 0, space: 1, idx: 0, gpfn: 0x40 };
    let (mut mapping, mut map) =
        (MachphysMapping::default(), MemoryMap { nr_entries: 0, buffer: core::ptr::null_mut() });
    let (mut text, mut features, mut info) =
        ([0; 16], FeatureInfo::default(), RunstateInfo::default());
    let (address, frame) = (VirtAddr::new(0x7000), Mfn::new(0x55));
    let pte = Pte::new(frame, PageTableFlags::PRESENT);
    let updates = [MmuUpdate::page_table(0x1008, pte), MmuUpdate::page_table(0x1010, pte)];
    let m2p = [MmuUpdate::machine_to_phys(frame, 9)];
    let flush = [MmuExtOp::tlb_flush_all()];
    let ops = |op| [op];
    let mut batch = [MulticallEntry::update_va_mapping(address, pte, UvmFlags::INVLPG)];
    let done = &mut 0;
    let domain = DomId::SELF;
    let mut seen = Vec::new();
    let mut see = |call: Call<'_>| {
        let record = CallRecord::of(&call);
        seen.push(format!("{record} ({})", record.flushes()));
    };
    see(Call::Memory(MemoryOp::Exchange(&mut exchange)));
    see(Call::Memory(MemoryOp::DecreaseReservation(&mut reservation)));
    see(Call::Memory(MemoryOp::IncreaseReservation(&mut reservation)));
    see(Call::Memory(MemoryOp::PopulatePhysmap(&mut reservation)));
    see(Call::Memory(MemoryOp::CurrentReservation(domain)));
    see(Call::Memory(MemoryOp::MaximumReservation(domain)));
    see(Call::Memory(MemoryOp::MaximumRamPage));
    see(Call::Memory(MemoryOp::MachphysMapping(&mut mapping)));
    see(Call::Memory(MemoryOp::MemoryMap(&mut map)));
    see(Call::Memory(MemoryOp::AddToPhysmap(&place)));
    see(Call::MmuUpdate { updates: &updates, done, domain });
    see(Call::MmuUpdate { updates: &m2p, done, domain });
    see(Call::UpdateVaMapping { address, pte, flush: UvmFlags::INVLPG | UvmFlags::ALL });
    see(Call::MmuExt { ops: &flush, done, domain });
    see(Call::MmuExt { ops: &ops(MmuExtOp::tlb_flush_local()), done, domain });
    see(Call::MmuExt { ops: &ops(MmuExtOp::invlpg_all(address)), done, domain });
    see(Call::MmuExt { ops: &ops(MmuExtOp::invlpg_local(address)), done, domain });
    see(Call::MmuExt { ops: &ops(MmuExtOp::pin_l1(frame)), done, domain });
    see(Call::MmuExt { ops: &ops(MmuExtOp::unpin(frame)), done, domain });
    see(Call::MmuExt { ops: &ops(MmuExtOp::clear_page(frame)), done, domain });
    see(Call::MmuExt { ops: &[], done, domain });
    see(Call::Multicall(&mut batch));
    see(Call::ConsoleWrite(b"four"));
    see(Call::Sched(SchedOp::Yield));
    see(Call::Sched(SchedOp::Block));
    see(Call::Sched(SchedOp::Poll { port: None, timeout: None }));
    see(Call::Sched(SchedOp::Shutdown(ShutdownReason::Crash)));
    see(Call::Suspend { start_info: None });
    see(Call::Suspend { start_info: Some(frame) });
    see(Call::EventChannel(EventChannelOp::Close(Port(4))));
    see(Call::EventChannel(EventChannelOp::Unmask(Port(4))));
    see(Call::EventChannel(EventChannelOp::BindVirq { virq: 1, vcpu: 2 }));
    see(Call::EventChannel(EventChannelOp::BindIpi { vcpu: 2 }));
    see(Call::EventChannel(EventChannelOp::BindPirq { pirq: 11, shared: true }));
    see(Call::EventChannel(EventChannelOp::BindPirq { pirq: 11, shared: false }));
    see(Call::EventChannel(EventChannelOp::AllocUnbound { remote: DomId(0) }));
    see(Call::GrantTable(GrantTableOp::SetupTable { frames: &mut [0; 2], status: &mut 0 }));
    see(Call::Version(VersionOp::Version));
    see(Call::Version(VersionOp::ExtraVersion(&mut text)));
    see(Call::Version(VersionOp::Features(&mut features)));
    see(Call::Vcpu { op: VcpuOp::Up, vcpu: 3 });
    see(Call::Vcpu { op: VcpuOp::Down, vcpu: 3 });
    see(Call::Vcpu { op: VcpuOp::GetRunstateInfo(&mut info), vcpu: 3 });
    see(Call::SetTrapTable(&[TrapInfo::new(14, address), TrapInfo::END]));
    see(Call::SetCallbacks { event: address, failsafe: VirtAddr::new(0x8000) });
    see(Call::SetSegmentBase(SegmentBase::GsKernel(address)));
    see(Call::Hvm(HvmOp::GetParam(HvmParamIndex::ConsolePfn)));
    see(Call::Hvm(HvmOp::FlushTlbs));
    see(Call::Hvm(HvmOp::GetMemType(Pfn::new(9))));
    see(Call::SetHvmParam { index: HvmParamIndex::CallbackIrq, value: 7 });
    see(Call::Physdev(PhysdevOp::SetIopl(1)));
    see(Call::Physdev(PhysdevOp::IrqStatusQuery { pirq: 11 }));
    see(Call::Physdev(PhysdevOp::Eoi { pirq: 11 }));
    assert_eq!(
        seen,
        [
            "memory_op exchange in=3 in_order=2 out=3 out_order=2 bits=32 exchanged=1 (0)",
            "memory_op decrease_reservation extents=3 order=2 bits=32 (0)",
            "memory_op increase_reservation extents=3 order=2 bits=32 (0)",
            "memory_op populate_physmap extents=3 order=2 bits=32 (0)",
            "memory_op current_reservation (0)",
            "memory_op maximum_reservation (0)",
            "memory_op maximum_ram_page (0)",
            "memory_op machphys_mapping (0)",
            "memory_op memory_map (0)",
            "memory_op add_to_physmap space=1 gfn=0x40 (0)",
            "mmu_update count=2 entry=0x1008..0x1010 pte=0x55|P (0)",
            "mmu_update count=1 m2p mfn=0x55 pfn=0x9 (0)",
            "update_va_mapping va=0x7000 pte=0x55|P flush=invlpg|all (1)",
            "mmuext_op count=1 tlb_flush_all (1)",
            "mmuext_op count=1 tlb_flush_local (1)",
            "mmuext_op count=1 invlpg_all va=0x7000 (1)",
            "mmuext_op count=1 invlpg_local va=0x7000 (1)",
            "mmuext_op count=1 pin_l1 mfn=0x55 (0)",
            "mmuext_op count=1 unpin mfn=0x55 (0)",
            "mmuext_op count=1 clear_page mfn=0x55 (0)",
            "mmuext_op count=0 (0)",
            "multicall entries=1 update_va_mapping (1)",
            "console_io write bytes=4 (0)",
            "sched_op yield (0)",
            "sched_op block (0)",
            "sched_op poll (0)",
            "sched_op shutdown reason=3 (0)",
            "sched_op suspend (0)",
            "sched_op suspend start_info=0x55 (0)",
            "event_channel_op close port=4 (0)",
            "event_channel_op unmask port=4 (0)",
            "event_channel_op bind_virq virq=1 vcpu=2 (0)",
            "event_channel_op bind_ipi vcpu=2 (0)",
            "event_channel_op bind_pirq pirq=11 shared (0)",
            "event_channel_op bind_pirq pirq=11 (0)",
            "event_channel_op alloc_unbound remote=0 (0)",
            "grant_table_op setup_table frames=2 (0)",
            "xen_version version (0)",
            "xen_version extraversion (0)",
            "xen_version get_features (0)",
            "vcpu_op up vcpu=3 (0)",
            "vcpu_op down vcpu=3 (0)",
            "vcpu_op get_runstate_info vcpu=3 (0)",
            "set_trap_table entries=2 (0)",
            "set_callbacks event=0x7000 failsafe=0x8000 (0)",
            "set_segment_base gs_kernel base=0x7000 (0)",
            "hvm_op get_param param=17 (0)",
            "hvm_op flush_tlbs (1)",
            "hvm_op get_mem_type pfn=0x9 (0)",
            "hvm_op set_param param=0 value=0x7 (0)",
            "physdev_op set_iopl iopl=1 (0)",
            "physdev_op irq_status_query pirq=11 (0)",
            "physdev_op eoi pirq=11 (0)",
        ]
    );
}
