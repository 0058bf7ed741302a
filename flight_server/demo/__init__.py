"""The demonstration: an embedded broker, a synthetic market, and a script over the real system."""
