"""Storage drivers: how the read-only layers and the writable layer of a container are laid out on disk."""
