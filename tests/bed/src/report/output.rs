//! Keeps the output of parts that run side by side apart.
//!
//! The first part that has not ended prints at once. The lines of the parts after it are kept until
//! their turn comes. So the output has the order of the parts, and no line of one part stands in the
//! report of another. A line may quote a guest, so it is printed without what steers a terminal.

use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::plain::plain;

/// Where lines go.
#[derive(Clone, Debug)]
pub struct Output(Option<OutputPage>);

/// The lines of one part.
#[derive(Clone, Debug)]
struct OutputPage {
    number: usize,
    pages: Arc<Mutex<Pages>>,
}

impl Output {
    /// Returns an output that prints at once.
    pub fn direct() -> Self {
        Self(None)
    }

    /// Returns an output for each of `parts` parts.
    pub fn of_parts(parts: usize) -> Vec<Self> {
        Self::with_printer(parts, |line| println!("{line}"))
    }

    fn with_printer(parts: usize, print: impl FnMut(&str) + Send + 'static) -> Vec<Self> {
        let kept = (0..parts).map(|_| Kept::default()).collect();
        let pages = Arc::new(Mutex::new(Pages { first: 0, kept, print: Printer(Box::new(print)) }));
        let page = |number| OutputPage { number, pages: Arc::clone(&pages) };
        (0..parts).map(|number| Self(Some(page(number)))).collect()
    }

    /// Prints a line, or keeps it until the turn of this part comes.
    pub fn print(&self, line: &str) {
        let line = plain(line);
        match &self.0 {
            None => println!("{line}"),
            Some(page) => page.lock().print(page.number, &line),
        }
    }

    /// Returns true if lines are printed at once.
    pub fn is_direct(&self) -> bool {
        self.0.as_ref().is_none_or(|page| page.lock().first == page.number)
    }

    /// Returns a value that ends this part when it is dropped, also by a panic.
    pub fn end_on_drop(&self) -> EndOnDrop {
        EndOnDrop(self.clone())
    }
}

impl OutputPage {
    /// Locks the pages, also after a panic in another part: no line is left half printed.
    fn lock(&self) -> MutexGuard<'_, Pages> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends a part.
#[derive(Debug)]
pub struct EndOnDrop(Output);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        if let Some(page) = &self.0.0 {
            page.lock().end(page.number);
        }
    }
}

#[derive(Debug)]
struct Pages {
    /// The part that prints at once: the first one that has not ended.
    first: usize,
    kept: Vec<Kept>,
    print: Printer,
}

#[derive(Debug, Default)]
struct Kept {
    lines: Vec<String>,
    ended: bool,
}

struct Printer(Box<dyn FnMut(&str) + Send>);

impl std::fmt::Debug for Printer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Printer")
    }
}

impl Pages {
    fn print(&mut self, number: usize, line: &str) {
        if number == self.first {
            (self.print.0)(line);
        } else {
            self.kept[number].lines.push(line.to_owned());
        }
    }

    fn end(&mut self, number: usize) {
        self.kept[number].ended = true;
        while self.kept.get(self.first).is_some_and(|part| part.ended) {
            self.first += 1;
            let lines = self.kept.get_mut(self.first).map(|part| mem::take(&mut part.lines));
            lines.iter().flatten().for_each(|line| (self.print.0)(line));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_in_the_order_of_the_parts() {
        let printed = Arc::new(Mutex::new(String::new()));
        let paper = Arc::clone(&printed);
        let parts = Output::with_printer(4, move |line| {
            paper.lock().unwrap().push_str(&format!("{line} "))
        });
        let seen = || printed.lock().unwrap().clone();
        let mut ends: Vec<_> = parts.iter().map(|part| Some(part.end_on_drop())).collect();
        parts[1].print("b1");
        parts[0].print("\u{1b}[Ha1");
        assert_eq!(seen(), "a1 ", "the first part prints at once");
        assert!(parts[0].is_direct() && !parts[1].is_direct());
        parts[2].print("c1");
        parts[3].print("d1");
        ends[2] = None;
        parts[0].print("a2");
        assert_eq!(seen(), "a1 a2 ", "the others wait, also one that has ended");
        ends[0] = None;
        assert_eq!(seen(), "a1 a2 b1 ");
        parts[1].print("b2");
        ends[1] = None;
        assert_eq!(seen(), "a1 a2 b1 b2 c1 d1 ", "the third has ended long ago");
    }
}
