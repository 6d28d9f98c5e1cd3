"""Causal language models (load, render, generate, score), sentence embedders and the prefix-sharing engine."""
