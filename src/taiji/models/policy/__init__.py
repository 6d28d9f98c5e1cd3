"""Policies that optimise returns over the following weeks: returns of logged sessions, cache-aware critics, expert cloning."""
