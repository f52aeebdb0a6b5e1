//! Service addresses: a TCP balancer over ready endpoints.
