"""Foundations that every package stands on: errors, artefacts, settings, progress, the component contracts."""
