//! Reader of a PVH `struct hvm_start_info`.
