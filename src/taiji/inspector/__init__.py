"""A finished (or unfinished) run as local web pages: read-only, on this machine only, without external resources."""
