"""Serves the tables of ``catalog`` by Arrow Flight SQL, or in-process."""
