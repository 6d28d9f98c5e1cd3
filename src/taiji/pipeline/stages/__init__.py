"""The stages of the recipes, one module each; heavy packages are imported when a stage runs."""
