"""Integrations with other packages, each of which is imported where it is needed only."""
