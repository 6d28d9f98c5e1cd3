"""Multi-machine runs: the stages' partitions on Ray, and the cost of a run of a given size."""
