"""Foundations of all packages: errors, artefacts, settings, progress, and the interfaces of components."""
