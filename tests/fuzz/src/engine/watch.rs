//! The input that runs now, for the panic hook and the watchdog.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::corpus;

/// The longest time that an input may take.
const TIME_LIMIT: Duration = Duration::from_secs(20);

struct CurrentInput {
    target: &'static str,
    input: Vec<u8>,
    since: Instant,
}

static CURRENT: Mutex<Option<CurrentInput>> = Mutex::new(None);

/// File and line of the last panic.
static PLACE: Mutex<String> = Mutex::new(String::new());

/// Returns the place of the last panic. It is empty if the program did not call [`start`].
pub fn place() -> String {
    PLACE.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// Records the input that runs next.
pub fn begin(target: &'static str, input: &[u8]) {
    let mut current = CURRENT.lock().unwrap_or_else(PoisonError::into_inner);
    let since = Instant::now();
    match &mut *current {
        Some(current) if current.target == target => {
            current.input.clear();
            current.input.extend_from_slice(input);
            current.since = since;
        }
        current => *current = Some(CurrentInput { target, input: input.to_vec(), since }),
    }
}

/// Records that no input runs.
pub fn end() {
    *CURRENT.lock().unwrap_or_else(PoisonError::into_inner) = None;
}

/// Installs the panic hook, and starts the watchdog for inputs that never end.
pub fn start() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if let Some(place) = panic.location() {
            *PLACE.lock().unwrap_or_else(PoisonError::into_inner) = place.to_string();
        }
        // Where panics unwind, the engine catches the panic, minimises the input and reports it later.
        if cfg!(panic = "abort") {
            keep("find");
            before(panic);
        }
    }));
    std::thread::spawn(|| {
        loop {
            std::thread::sleep(Duration::from_secs(1));
            let late = {
                let current = CURRENT.lock().unwrap_or_else(PoisonError::into_inner);
                current.as_ref().is_some_and(|current| current.since.elapsed() > TIME_LIMIT)
            };
            if late {
                keep("hang");
                std::process::exit(5);
            }
        }
    });
}

fn keep(kind: &str) {
    let Ok(current) = CURRENT.try_lock() else { return };
    let Some(CurrentInput { target, input, .. }) = &*current else { return };
    match corpus::keep(target, kind, input) {
        Ok(path) => eprintln!("fuzz {target}: {kind}: the input is in {}", path.display()),
        Err(error) => {
            eprintln!("fuzz {target}: {kind}: cannot write the input: {error}: {input:?}");
        }
    }
}
