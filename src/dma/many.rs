//! A whole set of buffers.

use hypercall::Xen;
use hypercall::trace::{Operation, Span};

use super::class::class_of_mask;
use super::plan::Plan;
use super::{AllocError, Allocator, CoherentBuffer, Request};
use crate::platform::Platform;

impl<P: Platform> Allocator<P> {
    /// Allocates a set of buffers, all or none. [`Device::alloc_many`](super::Device::alloc_many) is for
    /// drivers; here the limits are those of each request alone.
    ///
    /// A request that no memory can satisfy is refused before anything moves. If the reserve has to grow, it
    /// grows for the whole set, so a set costs a few exchanges, not one per buffer.
    ///
    /// May sleep, make hypercalls and call the kernel's frame allocator, as
    /// [`alloc_coherent`](Self::alloc_coherent) may. An interrupt handler may call it if each request has
    /// [`Sleep::MustNot`](super::Sleep::MustNot) and the lock of the reserve masks interrupts.
    ///
    /// # Errors
    /// The index of the request that failed, and its error. The other buffers were released.
    pub fn alloc_many<const N: usize>(
        &self,
        requests: &[Request; N],
    ) -> Result<[CoherentBuffer<'_, P>; N], (usize, AllocError)> {
        let mut frames = 0;
        for (index, request) in requests.iter().enumerate() {
            let limits = request.limits().map_err(|error| (index, error.into()))?;
            let plan = Plan::new(request.size(), &limits).map_err(|error| (index, error))?;
            frames += plan.frames();
            self.growth.expect(class_of_mask(limits.mask()), frames);
        }
        let bytes = requests.iter().map(Request::size).sum();
        let operation = Span::Operation(Operation::new("alloc_many", bytes));
        self.platform().xen().within(operation, || {
            let mut buffers = [const { None }; N];
            for (index, (request, buffer)) in requests.iter().zip(&mut buffers).enumerate() {
                let served = request.limits().map_err(AllocError::from);
                let served = served.and_then(|it| self.alloc_coherent(request.size(), &it));
                *buffer = Some(served.map_err(|error| (index, error))?);
            }
            Ok(buffers.map(|buffer| buffer.expect("each request was served")))
        })
    }
}
