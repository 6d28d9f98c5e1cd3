"""Policies that act for the coming weeks: returns of logged sessions, cache-aware critics, expert cloning."""
