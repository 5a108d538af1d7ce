"""The command line of Moorage. Knows the portal by its REST API alone."""
