//! The seeds and the corpus of every target, and the engine.

use std::time::Duration;

use fuzz::engine::{Run, attempt, corpus};
use fuzz::targets::TARGETS;

#[test]
fn the_corpus_makes_no_target_fail() {
    for target in &TARGETS {
        let kept = corpus::load(target.name).unwrap();
        let seeds = (target.seeds)();
        println!("{}: {} seeds, {} kept", target.name, seeds.len(), kept.len());
        assert!(!seeds.is_empty() && !kept.is_empty(), "{}: no input to replay", target.name);
        for input in seeds {
            attempt(target, &input).unwrap_or_else(|error| panic!("{}: {error}", target.name));
        }
        for (path, input) in kept {
            attempt(target, &input).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        }
    }
}

#[test]
fn every_target_runs() {
    for target in &TARGETS {
        let mut run = Run::new(target, 7).unwrap();
        run.run_for(Duration::from_millis(300));
        let messages: Vec<_> = run.failures.iter().map(|(_, failure)| &failure.message).collect();
        println!("{}: {} executions", target.name, run.executions);
        assert!(run.executions > run.inputs() as u64, "{}", target.name);
        assert!(messages.is_empty(), "{}: {messages:?}", target.name);
    }
}
