"""Policies that look beyond a single request: returns of sessions and a policy learnt from them, cache-aware critics
and their actor, expert cloning."""
