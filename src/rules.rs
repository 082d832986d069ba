//! The rules that this project keeps, each with an anchor to cite.
//!
//! Code and documents cite a rule as a link: `[M3](crate::rules#M3)`. A test (`tests/citations.rs`)
//! fails when a citation names a rule that is not on this page, and when a rule is cited nowhere.
//! The answers of Xen that some rules rely on are rows of [`conformance`](crate::conformance).
//!
//! * [Memory rules](#memory-rules): every `SAFETY` comment proves its claim against one of these.
//! * [Flush rules](#flush-rules): which TLB flush is made, by whom and when.
//! * [Statements](#statements): what the project claims to do, and which tests show it.
//!
//! # Memory rules
//!
//! ## <a id="M1"></a>M1: one owner per frame
//!
//! A frame is at any time in exactly one of these places:
//!
//! * the kernel's free list;
//! * in use by the kernel;
//! * the reserve, which is the memory that the allocator owns and has not handed out;
//! * a buffer;
//! * a transaction;
//! * set aside, because Xen refused it;
//! * quarantine;
//! * Xen.
//!
//! A value that owns frames, such as [`FrameRun`](crate::frames::FrameRun), proves M1 for them:
//! nothing else reads, writes or maps these frames while the value exists.
//!
//! ## <a id="M2"></a>M2: a transaction's run is unmapped
//!
//! PV: while a transaction holds a run, no page-table entry of this domain maps a frame of it.
//! PVH: the linear mapping stays, and nothing accesses the run.
//!
//! ## <a id="M3"></a>M3: what Xen reads and writes stays still
//!
//! Extent lists, the exchange struct, update lists, counters and multicall entries lie outside the
//! run and are mapped writable. The guest does not touch them during the hypercall, because Xen may
//! preempt the hypercall and resume it later ([C70](crate::conformance#C70)). After a multicall the
//! guest reads the results alone: Xen rewrites the entries when it is preempted, and a debug build
//! of Xen overwrites them.
//!
//! ## <a id="M4"></a>M4: the tables agree
//!
//! PV: outside a transaction, the P2M, the page tables and Xen's M2P name the same machine frame for
//! each guest frame. No safe function can break this.
//!
//! ## <a id="M5"></a>M5: DMA memory is never a reference
//!
//! A device may write to DMA memory at any time, so no Rust reference to it exists. It is accessed
//! through raw pointers, by volatile reads and writes. The memory of a
//! [`CoherentBox`](crate::dma::CoherentBox) becomes DMA memory when the box is shared: no device has
//! its address before.
//!
//! ## <a id="M6"></a>M6: what an error says about the frames
//!
//! A chunk that failed is *untouched* if the error is not `EFAULT` and the chunk's entries in the
//! out-list are unchanged. The transaction then maps the old frames again.
//!
//! Otherwise the chunk is *torn*: `EINVAL` and `ENOMEM` can also follow the commit point
//! ([C52](crate::conformance#C52)). The transaction reports it and recovers each frame that Xen's M2P
//! confirms. It quarantines exactly the frames whose state is unknown, and no others.
//!
//! A translated guest has no M2P, and Xen leaves its out-list as it is ([C79](crate::conformance#C79)).
//! After an error other than `EOPNOTSUPP` it asks Xen what backs each frame
//! ([C78](crate::conformance#C78)). It populates the holes and quarantines the frames that nothing
//! backs, or of which Xen does not tell.
//!
//! # Flush rules
//!
//! These are PV rules. They speak of flushes that the guest asks for. Xen also flushes on its own
//! account, when a second-level entry changes or a frame changes its type; no rule relies on that.
//!
//! ## <a id="F1"></a>F1: unmapping flushes nothing
//!
//! The purge of aliases and the clearing of page-table entries flush nothing.
//!
//! ## <a id="F2"></a>F2: one flush, before Xen takes the frames
//!
//! The last operation of `detach` asks Xen for one flush of every vCPU of the domain. So no vCPU can
//! reach the frames when Xen takes them. The rule does not rely on any other flush.
//!
//! ## <a id="F3"></a>F3: mapping flushes nothing
//!
//! `attach` turns not-present entries into present ones. An x86 processor does not cache not-present
//! entries, so there is nothing to flush.
//!
//! ## <a id="F4"></a>F4: no interrupts between vCPUs
//!
//! The guest sends no inter-processor interrupt for any of this.
//!
//! ## <a id="F5"></a>F5: purge first, then flush
//!
//! The purge of aliases comes before the flush of [F2](#F2), which therefore covers the addresses of
//! the aliases too.
//!
//! # Statements
//!
//! The idea comes from a discussion on a kernel mailing list in 2009: a guest that exchanges memory
//! with Xen can purge the aliases of that memory without flushing any TLB by itself. Each statement
//! below is demonstrated by tests on the host, against the model hypervisor, and by self-tests of
//! the kernel image, which run on a real Xen.
//!
//! ## <a id="S1"></a>S1: allocate, then exchange
//!
//! `dma_alloc_coherent` allocates memory as usual. Then it exchanges the machine frames that back the
//! memory, so that they are contiguous and in the device's range. Here the function is
//! [`Allocator::alloc_coherent`](crate::dma::Allocator::alloc_coherent).
//!
//! Shown by `tests/exchange.rs` and `tests/dma.rs`; in the image by `exchange-order-N`,
//! `dma-constraints` and, with a real device, `edu-dma-above-mask`.
//!
//! ## <a id="S2"></a>S2: one mapping
//!
//! Only the linear mapping may map the frames. Every alias is purged first.
//!
//! Shown by `tests/vmap/main.rs`; in the image by `vmap-leftover-purged` and `vmap-in-use-named`.
//!
//! ## <a id="S3"></a>S3: the flush can be inhibited
//!
//! The caller of the purge can inhibit the TLB flush. The purge itself flushes nothing.
//!
//! Shown by `tests/flush_rule.rs`; in the image by `vmap-purge-flushes-nothing` and
//! `vmap-purge-is-exact`.
//!
//! ## <a id="S4"></a>S4: entries hold references
//!
//! A page-table entry holds a reference on its frame. Xen refuses the exchange until every reference
//! is dropped ([C30](crate::conformance#C30)).
//!
//! Shown by `c30_…` in `tests/exchange.rs`; in the image by `stale-alias`.
//!
//! ## <a id="S5"></a>S5: Xen flushes, not the guest
//!
//! The guest sends no inter-processor interrupt to flush, because Xen knows which CPUs hold stale
//! entries. There is one Xen-side flush per transaction.
//!
//! Shown by `tests/flush_rule.rs`; in the image by `vmap-one-flush-per-exchange` and
//! `vmap-other-vcpu-faults`.
//!
//! ## <a id="S6"></a>S6: lazy unmapping can be switched off
//!
//! A compile-time and a boot-time flag switch lazy unmapping off: the feature `vmap-sync` and the
//! kernel option `vmap=sync`.
//!
//! Shown by `tests/vmap/main.rs`, built with and without the feature; in the image by `vmap-lazy-and-sync` and
//! `vmap-sync-unmaps-at-once`.
