"""More than one machine: the stages' partitions on Ray, and what a run of a given size costs."""
