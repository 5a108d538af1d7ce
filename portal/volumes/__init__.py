"""Volumes of teams: what is kept when apps go."""
