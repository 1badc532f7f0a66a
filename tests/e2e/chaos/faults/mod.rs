//! With servers that are killed, emptied and stopped, too.

mod random;
