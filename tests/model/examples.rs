//! Runs the examples, so that they keep working.

#[path = "../../examples/embed.rs"]
mod embed;
#[path = "../../examples/vmap.rs"]
mod vmap;

#[test]
fn the_embedding_example_runs() {
    embed::main().unwrap();
}

#[test]
fn the_example_of_virtual_areas_runs() {
    vmap::main().unwrap();
}
