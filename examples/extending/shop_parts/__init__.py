"""Parts for taiji from outside the package; see docs/extending.md of taiji."""
