-- Upserts and change streams, as Flink's sink writes them: equality deletes by the table's key.

CREATE TABLE k2.f.upserts (id BIGINT, word STRING, amount DECIMAL(9, 2), PRIMARY KEY (id) NOT ENFORCED)
  WITH ('format-version' = '2', 'write.upsert.enabled' = 'true');
INSERT INTO k2.f.upserts VALUES (1, 'one', 1.25), (2, 'two', CAST(NULL AS DECIMAL(9, 2))), (3, 'three', 3);
INSERT INTO k2.f.upserts VALUES (2, 'zwei', 2.5), (4, 'four', 4), (4, 'vier', 4);
INSERT INTO k2.f.upserts VALUES (1, 'un', 1), (5, CAST(NULL AS STRING), 5);

CREATE TABLE k2.f.by_day (id BIGINT, day_ DATE, word STRING, PRIMARY KEY (id, day_) NOT ENFORCED)
  PARTITIONED BY (day_) WITH ('format-version' = '2', 'write.upsert.enabled' = 'true');
INSERT INTO k2.f.by_day VALUES (1, DATE '2024-01-01', 'a'), (1, DATE '2024-01-02', 'b'),
  (2, DATE '2024-01-02', 'c');
INSERT INTO k2.f.by_day VALUES (1, DATE '2024-01-02', 'B'), (3, DATE '1969-12-31', 'd');

CREATE TABLE k2.f.vectors (id BIGINT, word STRING, PRIMARY KEY (id) NOT ENFORCED)
  WITH ('format-version' = '3', 'write.upsert.enabled' = 'true');
INSERT INTO k2.f.vectors VALUES (1, 'one'), (2, 'two'), (2, 'deux');
INSERT INTO k2.f.vectors VALUES (2, 'zwei'), (3, 'three'), (3, 'drei');

CREATE TABLE k2.f.appended (id BIGINT, flag BOOLEAN, little INT, f FLOAT, d DOUBLE, d9 DECIMAL(9, 2),
  d38 DECIMAL(38, 10), day_ DATE, tod TIME(0), at_ TIMESTAMP_LTZ(6), wall TIMESTAMP(6), word STRING,
  bytes_ BYTES, fixed BINARY(3), list_ ARRAY<INT>, pairs MAP<STRING, BIGINT>,
  pair ROW<x INT, y ROW<z STRING>>) WITH ('format-version' = '2');
INSERT INTO k2.f.appended VALUES (1, TRUE, -1, CAST(1.5 AS FLOAT), 2.5e0, 1.25,
  CAST('12345678901234567890.0123456789' AS DECIMAL(38, 10)), DATE '2024-02-29', TIME '12:34:56',
  CAST(TIMESTAMP '2024-02-29 12:00:00.123456' AS TIMESTAMP_LTZ(6)),
  TIMESTAMP '1969-12-31 23:59:59.999999', 'héllo', X'00ff', CAST(X'010203' AS BINARY(3)),
  ARRAY[1, 2], MAP['a', CAST(1 AS BIGINT)], CAST(ROW(1, ROW('z')) AS ROW<x INT, y ROW<z STRING>>));
