"""What criteria see of data: one pass that collects for all of them, and the mathematics behind.

`collect` is the pass; `probe_points`, `tape` and `backward_passes` say where and how it looks; `pairwise`,
`optimal_brain_surgeon` and `relevance_propagation` are mathematics. Users find the names in `kprune.criteria`.
"""
