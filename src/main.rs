//! stub
fn main(){}