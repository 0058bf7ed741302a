"""The data: Kafka's log, live segments and Iceberg tables as one exact, pinned table."""
