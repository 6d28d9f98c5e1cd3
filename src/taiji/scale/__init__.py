"""Runs on several machines: computation of partitions on Ray, and cost estimates."""
