//! Log events: one function each.
