//! One request, one plan, one journal: decide is pure, steps act.
