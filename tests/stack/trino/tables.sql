-- Tables as Trino writes them: position deletes, merges, evolved schemas and partitions, Bloom filters.

CREATE TABLE kinds (id BIGINT, flag BOOLEAN, little INTEGER, f REAL, d DOUBLE, d9 DECIMAL(9, 2),
  d38 DECIMAL(38, 10), day_ DATE, tod TIME(6), wall TIMESTAMP(6), at_ TIMESTAMP(6) WITH TIME ZONE,
  word VARCHAR, bytes_ VARBINARY, uid UUID, list_ ARRAY(INTEGER), pairs MAP(VARCHAR, BIGINT),
  pair ROW(x INTEGER, y ROW(z VARCHAR)));
INSERT INTO kinds VALUES (1, true, -1, REAL '1.5', 2.5e0, 1.25, DECIMAL '12345678901234567890.0123456789',
  DATE '2024-02-29', TIME '12:34:56.000001', TIMESTAMP '1969-12-31 23:59:59.999999',
  TIMESTAMP '2024-02-29 12:00:00.123456 +02:00', 'héllo', X'00ff',
  UUID '12151fd2-7586-11e9-8f9e-2a86e4085a59', ARRAY[1, NULL, 2], MAP(ARRAY['a'], ARRAY[1]),
  ROW(1, ROW('z')));
INSERT INTO kinds (id, f, d) VALUES (2, nan(), -infinity()), (3, REAL '-0.0', -0e0), (4, NULL, NULL);
INSERT INTO kinds (id, day_, wall, at_, list_, pairs) VALUES (5, DATE '0001-01-01',
  TIMESTAMP '9999-12-31 23:59:59.999999', TIMESTAMP '1582-10-04 00:00:00 UTC', ARRAY[], MAP());

CREATE TABLE changed (id BIGINT, word VARCHAR, amount DECIMAL(9, 2)) WITH (format_version = 2);
INSERT INTO changed SELECT n, 'word ' || CAST(n AS VARCHAR), n FROM UNNEST(sequence(1, 50)) AS t(n);
DELETE FROM changed WHERE id % 7 = 0;
UPDATE changed SET word = 'seven', amount = NULL WHERE id BETWEEN 10 AND 12;
MERGE INTO changed AS t USING (VALUES (3, 'drei'), (60, 'sechzig')) AS s(id, word) ON t.id = s.id
  WHEN MATCHED THEN UPDATE SET word = s.word WHEN NOT MATCHED THEN INSERT VALUES (s.id, s.word, 6);
DELETE FROM changed WHERE id > 40 AND id < 45;

CREATE TABLE parts (id BIGINT, at_ TIMESTAMP(6) WITH TIME ZONE, wall TIMESTAMP(6), word VARCHAR, day_ DATE)
  WITH (partitioning = ARRAY['day(at_)', 'bucket(id, 4)', 'truncate(word, 2)']);
INSERT INTO parts VALUES (1, TIMESTAMP '2024-02-29 23:59:59 UTC', TIMESTAMP '2024-01-01 00:00:00', 'alpha', DATE '2024-01-01'),
  (2, TIMESTAMP '1969-12-31 23:00:00 UTC', TIMESTAMP '1969-12-31 23:59:59.999999', 'alps', DATE '1969-12-31'),
  (3, NULL, NULL, NULL, NULL), (-4, TIMESTAMP '2024-03-01 00:00:00 UTC', TIMESTAMP '2024-03-01 01:00:00', 'éa', DATE '2024-02-29');
ALTER TABLE parts SET PROPERTIES partitioning = ARRAY['month(wall)', 'word'];
INSERT INTO parts VALUES (5, TIMESTAMP '2024-03-01 00:00:00 UTC', TIMESTAMP '2024-03-31 23:59:59', 'alpha', DATE '2024-03-01'),
  (6, TIMESTAMP '1969-12-31 23:00:00 UTC', TIMESTAMP '1969-11-30 23:59:59', 'a%b', DATE '1969-11-30');
ALTER TABLE parts SET PROPERTIES partitioning = ARRAY['year(day_)', 'hour(at_)'];
INSERT INTO parts VALUES (7, TIMESTAMP '1969-12-31 23:30:00 UTC', NULL, 'z', DATE '1969-12-31'), (8, NULL, NULL, '', NULL);
DELETE FROM parts WHERE id = 2;

CREATE TABLE evolved (id INTEGER, gone VARCHAR, price REAL, pair ROW(x INTEGER, y VARCHAR));
INSERT INTO evolved VALUES (1, 'a', REAL '1.25', ROW(1, 'one')), (2, NULL, NULL, NULL);
ALTER TABLE evolved ALTER COLUMN id SET DATA TYPE BIGINT;
ALTER TABLE evolved ALTER COLUMN price SET DATA TYPE DOUBLE;
ALTER TABLE evolved DROP COLUMN gone;
ALTER TABLE evolved ADD COLUMN gone BIGINT;
ALTER TABLE evolved RENAME COLUMN price TO cost;
ALTER TABLE evolved ADD COLUMN pair.w DOUBLE;
ALTER TABLE evolved RENAME COLUMN pair.y TO v;
INSERT INTO evolved VALUES (5000000000, 2.5e0, ROW(2, 'two', 0.5e0), 7);

CREATE TABLE blooms (id BIGINT, d DOUBLE, f REAL, word VARCHAR) WITH (sorted_by = ARRAY['id'],
  parquet_bloom_filter_columns = ARRAY['d', 'word']);
INSERT INTO blooms SELECT n * 3, (n - 50) * 0.5e0, CAST(n AS REAL), 'word ' || CAST(n AS VARCHAR)
  FROM UNNEST(sequence(1, 100)) AS t(n);
INSERT INTO blooms VALUES (1000, -0e0, REAL '-0.0', ''), (1001, 7e0, REAL '7', NULL), (1002, -9e0, NULL, 'ende');

CREATE TABLE compacted (id BIGINT, word VARCHAR) WITH (format_version = 2);
INSERT INTO compacted VALUES (1, 'a'), (2, 'b');
INSERT INTO compacted VALUES (3, 'c');
DELETE FROM compacted WHERE id = 2;
ALTER TABLE compacted EXECUTE optimize;
INSERT INTO compacted VALUES (4, 'd');

CREATE TABLE first_format (id BIGINT, word VARCHAR) WITH (format_version = 1);
INSERT INTO first_format VALUES (1, 'a'), (2, NULL);

CREATE TABLE orc_files (id BIGINT) WITH (format = 'ORC');
INSERT INTO orc_files VALUES (1);
