//! The simulated HVE endpoint.
