//! Starts the real servers that tidelog's tests talk to.
