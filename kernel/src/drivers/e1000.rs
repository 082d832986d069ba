//! The crate `eth-intel`, operated by interrupts or by polling, as a network card of the crate `smoltcp`.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::alloc::Layout;
use core::{fmt, hint};

use dma_api::{ContiguousBufferPool, DeviceDma, DmaDirection, DmaError};
use eth_intel::E1000;
use rdif_eth::{
    DmaBuffer, IRxQueue, ITxQueue, NetDevice, NetError, NetHardIrqEndpoint, NetHardIrqResult,
    NetPollIrqControl, NetRearmResult,
};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::time::Instant;

use super::function::{DeviceFunction, DeviceKind, DeviceMark};
use super::registers::{self, RegisterMap};
use super::waiting::Waiting;
use crate::time::Deadline;

/// Network cards that the crate drives: QEMU's e1000 is the first.
pub const E1000_CARD: DeviceKind = DeviceKind {
    name: "e1000 network card",
    qemu: "-device e1000",
    mark: DeviceMark::Ids(&[(0x8086, 0x100e), (0x8086, 0x100f)]),
    registers: 0,
    // The last register that the crate uses is RAH0.
    register_bytes: 0x5408,
};

/// The numbers of buffers for packets to receive, and for packets to transmit.
const RECEIVE: usize = 64;
const TRANSMIT: usize = 32;

/// The size of a buffer in bytes. The card receives at most this much into one.
const BUFFER_BYTES: usize = 2048;

/// The size of the largest packet in bytes, with its Ethernet header.
const PACKET_BYTES: usize = 1514;

/// The registers that let the card receive and transmit (`RCTL` and `TCTL` in Intel's manual of the 8254x).
const CONTROLS: [u64; 2] = [0x0100, 0x0400];

/// The reason why the card does not work.
#[derive(Debug)]
pub enum E1000Error {
    /// The crate rejects the card.
    Rejected(eth_intel::err::Error),
    /// A step of the crate failed.
    Step(&'static str, NetError),
    /// The crate supplied no queue, or no interrupt of it.
    NoQueue,
    /// No memory is available for buffers.
    NoBuffer(DmaError),
}

impl fmt::Display for E1000Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rejected(why) => write!(f, "the crate rejects the e1000: {why}"),
            Self::Step(step, why) => write!(f, "e1000: {step}: {why}"),
            Self::NoQueue => f.write_str("e1000: the crate supplied no queue"),
            Self::NoBuffer(why) => write!(f, "e1000: a buffer of {BUFFER_BYTES} bytes: {why}"),
        }
    }
}

impl core::error::Error for E1000Error {}

/// A card in use.
pub struct NetworkCard {
    // Dropped first: the interrupt is disabled, and then the function loses its right to do DMA before any
    // buffer is freed.
    waiting: Waiting,
    device: DeviceFunction,
    irq_endpoint: NetHardIrqEndpoint,
    /// True if the card may assert its interrupt. The crate's handler disables it.
    is_armed: bool,
    irq: Box<dyn NetPollIrqControl>,
    receiver: Receiver,
    transmitter: Transmitter,
    mac: [u8; 6],
}

/// The queue of received packets.
struct Receiver {
    queue: Box<dyn IRxQueue>,
    /// The packet that the user reads.
    current: Option<(DmaBuffer, usize)>,
    bytes: u64,
}

/// The queue of packets to transmit.
struct Transmitter {
    queue: Box<dyn ITxQueue>,
    free: Vec<DmaBuffer>,
    /// The number of buffers in the queue.
    ///
    /// The crate must not be asked for a finished buffer while its queue is empty. It would take the done bit of
    /// an earlier packet for that of the next one, and skip a descriptor.
    in_flight: usize,
    bytes: u64,
}

impl NetworkCard {
    /// Starts the card. All of its memory comes from `dma`.
    ///
    /// # Errors
    /// The crate rejects the card, or no memory is available.
    pub fn start(device: DeviceFunction, dma: &DeviceDma) -> Result<Self, E1000Error> {
        let bar = device.bar();
        let card = E1000::new(bar.start, bar.bytes as usize, dma.clone(), &RegisterMap)
            .map_err(E1000Error::Rejected)?;
        let starting = |why| E1000Error::Step("starting the card", why);
        // This allocates the rings and frees them if it fails. The card may not do DMA yet, because it could use a
        // ring that is freed.
        let mut parts = Box::new(card).into_parts().map_err(starting)?;
        let mut group = parts.poll_groups.pop().ok_or(E1000Error::NoQueue)?;
        let irq_endpoint = group.irq_endpoints.pop().ok_or(E1000Error::NoQueue)?;
        let (receive, transmit) = (group.queues.rx, group.queues.tx);
        // From here on a failure drops the card, which stops it before its rings are freed.
        let mut card = Self {
            waiting: Waiting::of(&device),
            device,
            irq_endpoint,
            is_armed: false,
            irq: group.irq_control,
            receiver: Receiver { queue: receive, current: None, bytes: 0 },
            transmitter: Transmitter { queue: transmit, free: Vec::new(), in_flight: 0, bytes: 0 },
            mac: parts.info.mac_address,
        };
        // The first packet then causes an interrupt, however fast the network answers.
        card.arm()?;
        card.transmitter.free = buffers(dma, DmaDirection::ToDevice, TRANSMIT)?;
        let for_packets = buffers(dma, DmaDirection::FromDevice, RECEIVE)?;
        card.device.start_dma();
        for buffer in for_packets {
            card.receiver.submit(buffer)?;
        }
        Ok(card)
    }

    /// Returns the card's Ethernet address.
    pub const fn mac(&self) -> [u8; 6] {
        self.mac
    }

    /// Returns the device.
    pub const fn device(&self) -> &DeviceFunction {
        &self.device
    }

    /// Waits until the card may have received or transmitted a packet, or until the deadline.
    ///
    /// # Errors
    /// The crate failed to arm the interrupt.
    pub fn wait(&mut self, deadline: Deadline) -> Result<(), E1000Error> {
        if !self.waiting.has_interrupt() {
            hint::spin_loop();
            return Ok(());
        }
        self.arm()?;
        if self.is_armed && self.waiting.wait(deadline) {
            let had_cause = self.irq_endpoint.handle_irq() != NetHardIrqResult::Spurious;
            self.is_armed = !had_cause;
            self.waiting.end(had_cause);
        }
        Ok(())
    }

    /// Lets the card assert its interrupt, if that can arrive and the card has nothing to do yet.
    fn arm(&mut self) -> Result<(), E1000Error> {
        if self.waiting.has_interrupt() && !self.is_armed {
            // The crate ignores the time.
            let armed = self.irq.rearm_and_check(0);
            let armed = armed.map_err(|why| E1000Error::Step("arming the interrupt", why))?;
            self.is_armed = armed == NetRearmResult::Idle;
        }
        Ok(())
    }

    /// Returns the number of bytes of all packets, received and transmitted.
    pub const fn bytes(&self) -> u64 {
        self.receiver.bytes + self.transmitter.bytes
    }
}

impl Drop for NetworkCard {
    fn drop(&mut self) {
        // If this fails, the writes below stop the card.
        let _stopped = self.irq.shutdown();
        // QEMU's e1000 does not stop on a reset. It would use the old rings again when the next driver lets it do
        // DMA.
        for offset in CONTROLS {
            if let Some(control) = registers::at(self.device.bar().start + offset, 4) {
                // SAFETY: `device` maps the registers as long as it lives, and `at` found this one among them.
                // With its enable bits cleared the card moves no packet.
                unsafe { control.cast::<u32>().write_volatile(0) };
            }
        }
    }
}

/// Allocates buffers of one direction.
fn buffers(
    dma: &DeviceDma,
    direction: DmaDirection,
    count: usize,
) -> Result<Vec<DmaBuffer>, E1000Error> {
    let layout = Layout::from_size_align(BUFFER_BYTES, 16);
    let layout = layout.map_err(|why| E1000Error::NoBuffer(why.into()))?;
    let pool: ContiguousBufferPool = dma.contiguous_buffer_pool(layout, direction, 0);
    let buffer = |_| {
        let memory = pool.alloc().map_err(E1000Error::NoBuffer)?;
        // The crate returns the memory if it is too small.
        DmaBuffer::new(memory, BUFFER_BYTES).map_err(|_| E1000Error::NoBuffer(DmaError::NoMemory))
    };
    (0..count).map(buffer).collect()
}

impl Receiver {
    /// Gives a buffer to the card.
    fn submit(&mut self, mut buffer: DmaBuffer) -> Result<(), E1000Error> {
        let receiving = |why| E1000Error::Step("a buffer for a packet", why);
        buffer.set_len(BUFFER_BYTES).map_err(receiving)?;
        buffer.prepare_for_device();
        self.queue.submit(buffer).map_err(|refused| receiving(refused.into_parts().1))
    }

    /// Takes the next packet from the card, and returns the buffer of the previous one to the card.
    fn next(&mut self) -> Option<()> {
        if let Some((buffer, _)) = self.current.take() {
            // The ring has more descriptors than buffers exist, so this cannot fail.
            self.submit(buffer).ok()?;
        }
        let packet = self.queue.reclaim()?;
        packet.buffer.complete_for_cpu(packet.packet_len.min(BUFFER_BYTES));
        self.bytes += packet.packet_len as u64;
        self.current = Some((packet.buffer, packet.packet_len));
        Some(())
    }
}

impl Transmitter {
    /// Frees the buffers of transmitted packets. Returns true if a buffer is free.
    fn reclaim(&mut self) -> bool {
        while self.in_flight > 0 {
            let Some(buffer) = self.queue.reclaim() else { break };
            self.in_flight -= 1;
            self.free.push(buffer);
        }
        !self.free.is_empty()
    }
}

/// A received packet.
pub struct ReceiveToken<'c>(&'c Receiver);

impl RxToken for ReceiveToken<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        match &self.0.current {
            Some((buffer, len)) => buffer.read_with_cpu((*len).min(buffer.capacity()), read),
            None => read(&[]),
        }
    }
}

/// A free buffer for a packet to transmit.
pub struct TransmitToken<'c>(&'c mut Transmitter);

impl TxToken for TransmitToken<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, write: F) -> R {
        // The token exists only if a buffer is free.
        let Some(mut buffer) = self.0.free.pop() else { return write(&mut []) };
        // `DeviceCapabilities` limits the packet to less than a buffer.
        let _fits = buffer.set_len(len);
        let written = buffer.write_with_cpu(write);
        buffer.prepare_for_device();
        match self.0.queue.submit(buffer) {
            Ok(()) => {
                self.0.in_flight += 1;
                self.0.bytes += len as u64;
            }
            // The packet is lost, as on a wire. The protocols above repeat it.
            Err(refused) => self.0.free.push(refused.into_buffer()),
        }
        written
    }
}

impl Device for NetworkCard {
    type RxToken<'a> = ReceiveToken<'a>;
    type TxToken<'a> = TransmitToken<'a>;

    fn receive(&mut self, _: Instant) -> Option<(ReceiveToken<'_>, TransmitToken<'_>)> {
        if !self.transmitter.reclaim() {
            return None;
        }
        self.receiver.next()?;
        Some((ReceiveToken(&self.receiver), TransmitToken(&mut self.transmitter)))
    }

    fn transmit(&mut self, _: Instant) -> Option<TransmitToken<'_>> {
        self.transmitter.reclaim().then_some(TransmitToken(&mut self.transmitter))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = PACKET_BYTES;
        capabilities
    }
}
