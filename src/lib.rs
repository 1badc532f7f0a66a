//! tidelog
