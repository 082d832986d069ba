//! Seeds and finds of every target, replayed; and the engine itself.

use std::time::Duration;

use fuzz::engine::{Run, attempt, corpus};
use fuzz::targets::TARGETS;

#[test]
fn what_was_kept_does_no_wrong() {
    for target in &TARGETS {
        let kept = corpus::load(target.name).unwrap();
        let seeds = (target.seeds)();
        println!("{}: {} seeds, {} kept", target.name, seeds.len(), kept.len());
        assert!(!seeds.is_empty() && !kept.is_empty(), "{}: nothing to replay", target.name);
        for input in seeds {
            attempt(target, &input).unwrap_or_else(|wrong| panic!("{}: {wrong}", target.name));
        }
        for (path, input) in kept {
            attempt(target, &input).unwrap_or_else(|wrong| panic!("{}: {wrong}", path.display()));
        }
    }
}

#[test]
fn every_target_runs() {
    for target in &TARGETS {
        let mut run = Run::new(target, 7).unwrap();
        run.go(Duration::from_millis(300));
        let found: Vec<_> = run.finds.iter().map(|(_, wrong)| &wrong.message).collect();
        println!("{}: {} executions", target.name, run.executions);
        assert!(run.executions > run.inputs() as u64, "{}", target.name);
        assert!(found.is_empty(), "{}: {found:?}", target.name);
    }
}
