//! Controllers of the local platform: PetSet, StatefulSet, EndpointSlice, garbage.
