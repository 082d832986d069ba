//! Reader of a PV `struct start_info`.
