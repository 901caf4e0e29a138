//! Rules of egress, through the crate's public interface.

mod egress;
