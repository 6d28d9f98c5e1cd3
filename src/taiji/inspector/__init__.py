"""Show a finished or unfinished run on local web pages. They are read-only, accessible only on this machine, and use no
external resources."""
