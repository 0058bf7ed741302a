"""A Flight SQL server kernel that knows no engine."""
