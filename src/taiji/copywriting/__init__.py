"""Copywriting: short copy for items, generated, checked against its evidence, and selected by a reward model.

A *copy* is one marketing text about an item, such as a push notification.
"""
