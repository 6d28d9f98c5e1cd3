"""Scripts of the repository: pages that are generated and checks that `make` runs. Not part of the package."""
