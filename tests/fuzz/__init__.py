"""Coverage-guided fuzzing of every decoder: ``make fuzz``. The corpus stands in tests/corpus."""
