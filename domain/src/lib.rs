//! The pure part of tidelog: aggregates, events, versions, positions, projections, and tests of them.
