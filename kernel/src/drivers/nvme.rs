//! The crate `nvme-driver`, operated by interrupts or by polling.
//!
//! The crate expects a runtime that calls it after interrupts. This file is that runtime. Without interrupts
//! it asks the crate's interrupt handlers again and again instead. In the mode for INTx the handlers mask the
//! controller's interrupt until the runtime asks for the next, which it does only if one can arrive.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::{hint, mem};

use dma_api::{CpuDmaBuffer, DeviceDma};
use nvme_driver::{Config, Nvme, NvmeBlockDriver, NvmeIntxSource};
use rdif_block::{
    BatchSubmitDisposition, BlkError, BlockController, CompletedRequest, CompletionSink,
    ControllerEvent, ControllerState, ControllerUpdate, HardIrqHandler, HardwareQueue, IrqEndpoint,
    OwnedRequest, OwnedRequestBatch, QueueInfo, RequestFlags, RequestId, RequestOp, SubmissionSink,
};
use xen_contig::addr::PAGE_SIZE;

use super::block_size;
use super::doorbells;
use super::function::{DeviceFunction, DeviceKind, DeviceMark};
use super::nvme_error::NvmeError;
use super::registers::{self, RegisterMap};
use super::waiting::Waiting;
use crate::time::Deadline;

/// NVMe disks of every maker.
pub const NVME: DeviceKind = DeviceKind {
    name: "NVMe disk",
    qemu: "-device nvme",
    mark: DeviceMark::Class(0x01, 0x08, 0x02),
    registers: 0,
    // All before the doorbells. `NvmeDisk::start` checks that those lie within the memory too.
    register_bytes: 0x1000,
};

/// The number of requests that may be in flight at a time.
pub const AT_A_TIME: usize = 8;

/// The number of seconds of system time after which the driver gives up the disk.
///
/// A disk in a file needs a millisecond. A busy host may not run the device for seconds.
const LIMIT_SECONDS: u64 = 60;

/// Tells the crate to look for events at each call, as if the function asserted its interrupt.
///
/// The status in configuration space would tell more, but asking the backend for it takes longer than looking.
struct Asserted;

impl NvmeIntxSource for Asserted {
    fn is_asserted(&self) -> bool {
        true
    }
}

/// A request, and the memory that it reads or writes.
pub struct NvmeRequest {
    /// The operation.
    pub op: RequestOp,
    /// The first block.
    pub block: u64,
    /// The memory, a whole number of blocks.
    pub buffer: CpuDmaBuffer,
}

/// A disk in use.
pub struct NvmeDisk {
    /// `None` after a failure, when the controller was stopped.
    running: Option<Running>,
    // Dropped before the device, whose interrupt it disables.
    waiting: Waiting,
    info: QueueInfo,
    dma: DeviceDma,
    device: DeviceFunction,
}

/// The crate's objects for a running controller.
struct Running {
    queue: Box<dyn HardwareQueue>,
    queue_irq: Box<dyn HardIrqHandler>,
    // Dropped last: it has the mapping of the registers.
    controller: NvmeBlockDriver,
}

impl NvmeDisk {
    /// Starts the controller. All of its memory comes from `dma`.
    ///
    /// # Errors
    /// The crate rejects the controller, or the controller does not start.
    pub fn start(device: DeviceFunction, dma: DeviceDma) -> Result<Self, NvmeError> {
        let bar = device.bar();
        // This holds for a controller whose CAP never changes. The crate (nvme-driver 0.8.2) reads CAP again at each
        // write to a doorbell, and would follow another answer out of the registers.
        let used = doorbells::end(capabilities(&device));
        if used > bar.bytes {
            return Err(NvmeError::ShortMemory { slot: NVME.registers, bytes: bar.bytes, used });
        }
        let config = Config::intx(PAGE_SIZE);
        let nvme = Nvme::new(bar.start, bar.bytes as usize, dma.clone(), &RegisterMap, config)
            .map_err(NvmeError::Rejected)?;
        // The controller does no DMA until it runs. A failure after this stops it before memory is freed.
        device.start_dma();
        let mut controller =
            NvmeBlockDriver::from_nvme_with_queue_depth(nvme, AT_A_TIME).with_intx_source(Asserted);
        let mut waiting = Waiting::of(&device);
        match resources(&mut controller, &mut waiting) {
            Ok((queue, endpoint)) => {
                let info = queue.info();
                let dma = dma.with_constraints(info.limits.dma.constraints());
                let queue_irq = endpoint.into_handler();
                let running = Some(Running { queue, queue_irq, controller });
                // A failure drops the disk, which stops the controller before its queues are freed.
                let disk = Self { running, waiting, info, dma, device };
                block_size::check(info.device.logical_block_size).map_err(NvmeError::BlockSize)?;
                Ok(disk)
            }
            Err(error) => {
                if stop(&mut controller).is_err() {
                    // The controller may still access the queues.
                    mem::forget(controller);
                }
                Err(error)
            }
        }
    }

    /// Returns the size of the disk and the limits of a request.
    pub const fn info(&self) -> &QueueInfo {
        &self.info
    }

    /// Returns the device.
    pub const fn device(&self) -> &DeviceFunction {
        &self.device
    }

    /// Returns the number of bytes of the largest request.
    pub const fn max_transfer(&self) -> usize {
        self.info.limits.max_blocks_per_request as usize * self.info.device.logical_block_size
    }

    /// Returns the memory from which buffers of requests are allocated.
    pub const fn dma(&self) -> &DeviceDma {
        &self.dma
    }

    /// Gives all requests to the controller, waits until they are done, and returns their buffers.
    ///
    /// # Errors
    /// A request failed. The controller was stopped, and the disk is given up.
    pub fn transfer(&mut self, requests: Vec<NvmeRequest>) -> Result<Vec<CpuDmaBuffer>, NvmeError> {
        let block_bytes = self.info.device.logical_block_size;
        let batch = requests.into_iter().map(|request| OwnedRequest {
            op: request.op,
            lba: request.block,
            block_count: (request.buffer.len().get() / block_bytes) as u32,
            data: Some(request.buffer.prepare_for_device()),
            flags: RequestFlags::NONE,
        });
        self.run(batch.collect())
    }

    /// Makes the disk write its cache to the medium.
    ///
    /// # Errors
    /// As [`transfer`](Self::transfer).
    pub fn flush(&mut self) -> Result<(), NvmeError> {
        let flush = OwnedRequest {
            op: RequestOp::Flush,
            lba: 0,
            block_count: 0,
            data: None,
            flags: RequestFlags::NONE,
        };
        self.run([flush].into_iter().collect()).map(drop)
    }

    /// Has the controller carry out requests. After a failure it is stopped.
    fn run(&mut self, batch: OwnedRequestBatch) -> Result<Vec<CpuDmaBuffer>, NvmeError> {
        let running = self.running.as_mut().ok_or(NvmeError::GivenUp)?;
        let done = running.transfer(batch, &mut self.waiting);
        if done.is_err() {
            self.stop();
        }
        done
    }

    /// Stops the controller, which then accesses no memory.
    fn stop(&mut self) {
        let Some(mut running) = self.running.take() else { return };
        if stop(&mut running.controller).is_err() {
            // The controller may still access its queues and buffers, so they stay allocated.
            mem::forget(running);
            return;
        }
        // The crate returns the buffers of requests in flight, which are freed.
        let _stopped = running.queue.shutdown(&mut Completions(Vec::new()));
    }
}

impl Drop for NvmeDisk {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Receives the numbers of accepted requests, in the order of the requests.
struct Accepted(Vec<RequestId>);

impl SubmissionSink for Accepted {
    fn accepted(&mut self, id: RequestId) {
        self.0.push(id);
    }
}

/// Receives finished requests.
struct Completions(Vec<CompletedRequest>);

impl CompletionSink for Completions {
    fn complete(&mut self, request: CompletedRequest) {
        self.0.push(request);
    }
}

impl Running {
    fn transfer(
        &mut self,
        mut batch: OwnedRequestBatch,
        waiting: &mut Waiting,
    ) -> Result<Vec<CpuDmaBuffer>, NvmeError> {
        let step = |why| NvmeError::Step("submitting a request", why);
        let mut accepted = Accepted(Vec::new());
        let result = self.queue.submit_batch_owned(&mut batch, &mut accepted);
        self.queue.commit_submissions().map_err(step)?;
        match result.disposition() {
            BatchSubmitDisposition::Continue if batch.is_empty() => {}
            BatchSubmitDisposition::Fatal(why) => return Err(step(why)),
            _ => return Err(step(BlkError::Retry)),
        }
        let mut done = self.wait(accepted.0.len(), waiting)?;
        let mut buffers = Vec::new();
        for id in accepted.0 {
            let Some(index) = done.iter().position(|one| one.id == id) else {
                return Err(NvmeError::Step("finding a request's completion", BlkError::Io));
            };
            let one = done.swap_remove(index);
            one.result.map_err(|why| NvmeError::Step("a request", why))?;
            buffers.extend(one.data.map(|data| data.into_cpu_buffer()));
        }
        Ok(buffers)
    }

    /// Waits until `count` requests are done.
    ///
    /// If the interrupt does not arrive in time but requests are done, polls from then on, as `nvme_timeout` in Linux
    /// does.
    fn wait(
        &mut self,
        count: usize,
        waiting: &mut Waiting,
    ) -> Result<Vec<CompletedRequest>, NvmeError> {
        let mut deadline = Deadline::in_seconds(LIMIT_SECONDS);
        let mut done = Completions(Vec::new());
        while done.0.len() < count {
            rearm(&mut self.controller, waiting)?;
            let arrived = waiting.wait(deadline);
            let (before, mut drained) = (done.0.len(), Ok(()));
            if self.queue_irq.ack().queues().contains(self.queue.id()) {
                drained = self.queue.drain_completions(&mut done);
            }
            let progressed = done.0.len() > before;
            if arrived {
                waiting.end(progressed);
            }
            drained.map_err(|why| NvmeError::Step("a completion", why))?;
            if deadline.has_passed() {
                if !progressed {
                    return Err(stuck("a request"));
                }
                if !arrived {
                    waiting.poll_instead();
                }
                deadline = Deadline::in_seconds(LIMIT_SECONDS);
            }
        }
        Ok(done.0)
    }
}

/// Returns the error of a step that the controller did not finish in time.
const fn stuck(step: &'static str) -> NvmeError {
    NvmeError::Stuck { step, seconds: LIMIT_SECONDS }
}

/// Returns the first register of a controller, which is called CAP.
fn capabilities(device: &DeviceFunction) -> u64 {
    let register = registers::at(device.bar().start, 8);
    // SAFETY: `device` maps the registers as long as it lives, and `at` found this one among them. Reading it has
    // no side effect.
    register.map_or(0, |register| unsafe { register.cast::<u64>().read_volatile() })
}

/// Lets the controller assert its interrupt, if one can arrive. Its handler masks it again.
fn rearm(controller: &mut NvmeBlockDriver, waiting: &Waiting) -> Result<(), NvmeError> {
    if !waiting.has_interrupt() {
        return Ok(());
    }
    // The admin queue and the other queue share this source, as in `Config::intx`.
    let armed = controller.advance(ControllerEvent::Rearm { source_id: 0 });
    armed.map(drop).map_err(|why| NvmeError::Step("arming the interrupt", why))
}

/// Starts the controller and returns its queue, and the interrupt of the queue.
fn resources(
    controller: &mut NvmeBlockDriver,
    waiting: &mut Waiting,
) -> Result<(Box<dyn HardwareQueue>, IrqEndpoint), NvmeError> {
    let starting = |why| match why {
        BlkError::NotSupported => NvmeError::Namespace,
        why => NvmeError::Step("starting the controller", why),
    };
    let start = ControllerEvent::Start { target_queues: 1 };
    let mut update = controller.advance(start).map_err(starting)?;
    let admin = update.take_irq_endpoints().pop().ok_or(NvmeError::NoQueue)?;
    let mut admin_irq = admin.into_handler();
    let mut deadline = Deadline::in_seconds(LIMIT_SECONDS);
    loop {
        let event = match update.controller_state() {
            ControllerState::Ready => break,
            ControllerState::RegisterPending { .. } => ControllerEvent::RegisterRetry,
            ControllerState::WaitingForIrq => {
                rearm(controller, waiting)?;
                // The time limit is checked below.
                let arrived = waiting.wait(deadline);
                let control = admin_irq.ack().control_event();
                // The crate does not report whether a command was done. So each interrupt counts as the device's own,
                // and if none arrives, polling finds out.
                if arrived {
                    waiting.end(true);
                } else if waiting.has_interrupt() {
                    waiting.poll_instead();
                    deadline = Deadline::in_seconds(LIMIT_SECONDS);
                }
                ControllerEvent::Irq(control)
            }
            ControllerState::Shutdown => return Err(starting(BlkError::Io)),
        };
        if deadline.has_passed() {
            return Err(stuck("starting the controller"));
        }
        update = controller.advance(event).map_err(starting)?;
        hint::spin_loop();
    }
    let resources = update.take_queues().pop().zip(update.take_irq_endpoints().pop());
    resources.ok_or(NvmeError::NoQueue)
}

/// Disables the controller and waits until it has stopped.
fn stop(controller: &mut NvmeBlockDriver) -> Result<(), NvmeError> {
    let stopping = |why| NvmeError::Step("stopping the controller", why);
    let deadline = Deadline::in_seconds(LIMIT_SECONDS);
    let mut update: ControllerUpdate =
        controller.advance(ControllerEvent::Shutdown).map_err(stopping)?;
    while update.controller_state() != ControllerState::Shutdown {
        if deadline.has_passed() {
            return Err(stuck("stopping the controller"));
        }
        hint::spin_loop();
        update = controller.advance(ControllerEvent::RegisterRetry).map_err(stopping)?;
    }
    Ok(())
}
