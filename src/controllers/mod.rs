//! kube-runtime glue: who is woken by what; no logic.
