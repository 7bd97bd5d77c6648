"""Config files: reading, checking, command-line options, and where a value came from."""
