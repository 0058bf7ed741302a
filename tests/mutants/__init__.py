"""Small wrong changes of the real code, each of which a named test must catch."""
