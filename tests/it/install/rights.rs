//! The rights that the chart gives are enough for everything, and nothing is given for nothing.
