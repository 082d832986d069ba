//! Runs the examples, so that they keep working.

#[path = "../../examples/driver.rs"]
mod driver;
#[path = "../../examples/embed.rs"]
mod embed;
#[path = "../../examples/packet.rs"]
mod packet;
#[path = "../../examples/pool.rs"]
mod pool;
#[path = "../../examples/vmap.rs"]
mod vmap;

#[test]
fn the_embedding_example_runs() {
    embed::main().unwrap();
}

#[test]
fn the_example_of_a_driver_runs() {
    driver::main().unwrap();
}

#[test]
fn the_example_of_a_packet_runs() {
    packet::main().unwrap();
}

#[test]
fn the_example_of_a_pool_runs() {
    pool::main().unwrap();
}

#[test]
fn the_example_of_virtual_areas_runs() {
    vmap::main().unwrap();
}
