//! Groups of eventbus processes, as real processes of the operating system, that are killed, stopped and held up in the middle of
//! their work, and events that cannot be handled.

mod kit;

mod between;
mod faults;
mod hand_over;
mod poison;
mod zombie;
