//! What the inventory makes of objects.
