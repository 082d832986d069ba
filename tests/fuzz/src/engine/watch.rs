//! What is being tried now, for those who find out that it ends the program: the panic hook and the
//! watchdog.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::corpus;

/// Longer than this no input may take.
const PATIENCE: Duration = Duration::from_secs(20);

struct Now {
    target: &'static str,
    input: Vec<u8>,
    since: Instant,
}

static NOW: Mutex<Option<Now>> = Mutex::new(None);

/// File and line of the last panic.
static PLACE: Mutex<String> = Mutex::new(String::new());

/// Where the last panic was; empty where nobody has called [`start`].
pub fn place() -> String {
    PLACE.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// An input is about to be tried.
pub fn begin(target: &'static str, input: &[u8]) {
    let mut now = NOW.lock().unwrap_or_else(PoisonError::into_inner);
    let since = Instant::now();
    match &mut *now {
        Some(now) if now.target == target => {
            now.input.clear();
            now.input.extend_from_slice(input);
            now.since = since;
        }
        now => *now = Some(Now { target, input: input.to_vec(), since }),
    }
}

/// No input is being tried.
pub fn end() {
    *NOW.lock().unwrap_or_else(PoisonError::into_inner) = None;
}

/// Has finds kept even if they end the program, and looks for those that never end.
pub fn start() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if let Some(place) = panic.location() {
            *PLACE.lock().unwrap_or_else(PoisonError::into_inner) = place.to_string();
        }
        // If not, it is caught, made smaller, and told then.
        if cfg!(panic = "abort") {
            keep("find");
            before(panic);
        }
    }));
    std::thread::spawn(|| {
        loop {
            std::thread::sleep(Duration::from_secs(1));
            let late = {
                let now = NOW.lock().unwrap_or_else(PoisonError::into_inner);
                now.as_ref().is_some_and(|now| now.since.elapsed() > PATIENCE)
            };
            if late {
                keep("hang");
                std::process::exit(5);
            }
        }
    });
}

fn keep(kind: &str) {
    let Ok(now) = NOW.try_lock() else { return };
    let Some(now) = &*now else { return };
    match corpus::keep(now.target, kind, &now.input) {
        Ok(path) => eprintln!("fuzz {}: {kind}, kept in {}", now.target, path.display()),
        Err(error) => eprintln!("fuzz {}: {kind}, not kept: {error}: {:?}", now.target, now.input),
    }
}
