"""Random statements, asked of the same rows kept in several ways, of oracles and of DuckDB."""
