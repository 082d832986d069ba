//! Single frames, as a value that owns them.

use crate::addr::Pfn;
use crate::frames::FrameRun;

/// Single frames that their holder owns, wherever they lie.
#[derive(Debug)]
pub(crate) struct ScatteredFrames<'l> {
    numbers: &'l mut [u64],
    count: usize,
}

impl<'l> ScatteredFrames<'l> {
    /// Returns an empty collection with room for one frame per entry of the list.
    pub const fn new(numbers: &'l mut [u64]) -> Self {
        Self { numbers, count: 0 }
    }

    /// Adds a run of one frame. Returns a run that has another length, or for which there is no room.
    pub fn add(&mut self, run: FrameRun) -> Option<FrameRun> {
        match self.numbers.get_mut(self.count) {
            Some(entry) if run.frames() == 1 => {
                *entry = run.first().number();
                self.count += 1;
                None
            }
            _ => Some(run),
        }
    }

    /// Returns the numbers of the frames in ascending order.
    pub(super) fn sorted(&mut self) -> &[u64] {
        let numbers = &mut self.numbers[..self.count];
        numbers.sort_unstable();
        numbers
    }

    /// Iterates over the frames.
    pub fn iter(&self) -> impl Iterator<Item = Pfn> + '_ {
        self.numbers[..self.count].iter().map(|number| Pfn::new(*number))
    }

    /// Returns the frames as runs.
    pub fn into_runs(self) -> impl Iterator<Item = FrameRun> + 'l {
        let Self { numbers, count } = self;
        // SAFETY: each number came out of a run of one frame, which no longer exists
        // ([M1](crate::rules#M1)).
        numbers[..count].iter().map(|number| unsafe { FrameRun::new(Pfn::new(*number), 1) })
    }
}
