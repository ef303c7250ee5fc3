"""A data lake's identity service on one machine, for development and tests only."""
