"""Scripts of the repository that are not part of the package: generators of pages, and checks that `make` runs."""
