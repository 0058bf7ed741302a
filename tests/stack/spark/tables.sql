-- What the tests read: one table per thing that writers do. Statements end with ";" at a line's end.

CREATE TABLE s.types (
  id bigint NOT NULL, flag boolean, small int, big bigint, f float, d double,
  d9 decimal(9, 2), d18 decimal(18, 8), d38 decimal(38, 10), day date, at timestamp,
  local timestamp_ntz, word string, raw binary,
  list array<int>, tree array<struct<a: int, b: array<string>>>,
  pairs map<string, bigint>, deep map<string, struct<x: int, y: array<double>>>,
  pair struct<left: int, right: struct<name: string, at: timestamp>>
) TBLPROPERTIES ('format-version' = '2', 'write.parquet.compression-codec' = 'zstd');

INSERT INTO s.types VALUES
  (1, true, 1, 1, 1.5, 1.5, 1.25, 1.00000001, 1.5, date '2024-02-29',
   timestamp '2024-02-29 12:00:00.123456', timestamp_ntz '2024-02-29 12:00:00.123456', 'héllo',
   x'00ff', array(1, null, 3), array(named_struct('a', 1, 'b', array('x', null))),
   map('a', 1, 'b', null), map('k', named_struct('x', 1, 'y', array(1.5, null))),
   named_struct('left', 1, 'right', named_struct('name', 'n', 'at', timestamp '1950-01-01'))),
  (2, false, -2147483648, -9223372036854775808, float('NaN'), double('-Infinity'), -9999999.99,
   -9999999999.99999999, -9999999999999999999999999999.9999999999, date '1582-10-15',
   timestamp '1900-01-01 00:00:00', timestamp_ntz '9999-12-31 23:59:59.999999', '',
   x'', array(), array(), map(), map(), named_struct('left', null, 'right', null)),
  (3, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null,
   null, null, null),
  (4, true, 2147483647, 9223372036854775807, float('-0.0'), double('NaN'), 9999999.99,
   9999999999.99999999, 9999999999999999999999999999.9999999999, date '9999-12-31',
   timestamp '2262-04-11 23:47:16.854775', timestamp_ntz '1969-12-31 23:59:59.999999', '☃ "%_\\',
   x'ffffff', array(null), array(null, named_struct('a', null, 'b', null)), map('', 0),
   map('z', null), named_struct('left', 9, 'right', named_struct('name', null, 'at', null)));

CREATE TABLE s.types_v1 (id bigint, word string, d9 decimal(9, 2), day date, at timestamp)
  TBLPROPERTIES ('format-version' = '1', 'write.parquet.compression-codec' = 'gzip');
INSERT INTO s.types_v1 SELECT id, 'w' || (id % 3), id / 4, date_add(date '2024-01-01', int(id)),
  timestamp '2024-01-01' + make_interval(0, 0, 0, int(id)) FROM range(10);
INSERT OVERWRITE s.types_v1 SELECT id, null, -id, null, null FROM range(3);

CREATE TABLE s.snappy (id bigint, word string) TBLPROPERTIES (
  'format-version' = '2', 'write.parquet.compression-codec' = 'snappy');
INSERT INTO s.snappy SELECT id, 'w' || (id % 7) FROM range(100);
ALTER TABLE s.snappy SET TBLPROPERTIES ('write.parquet.compression-codec' = 'uncompressed',
  'write.parquet.dict-size-bytes' = '16', 'write.parquet.page-version' = 'v2');
INSERT INTO s.snappy SELECT id, 'v' || id FROM range(100, 200);
ALTER TABLE s.snappy SET TBLPROPERTIES ('write.parquet.compression-codec' = 'lz4');
INSERT INTO s.snappy SELECT id, 'u' || id FROM range(200, 300);

CREATE TABLE s.row_groups (id bigint, word string, n int) TBLPROPERTIES (
  'format-version' = '2', 'write.parquet.row-group-size-bytes' = '2048',
  'write.parquet.page-row-limit' = '50', 'write.parquet.row-group-check-min-record-count' = '100',
  'write.parquet.bloom-filter-enabled.column.word' = 'true',
  'write.parquet.bloom-filter-max-bytes' = '1024');
INSERT INTO s.row_groups SELECT id, 'w' || (id * 7919 % 1000), int(id % 10) FROM range(1000);

-- Deletes.
CREATE TABLE s.position_deletes (id bigint, day date, word string) PARTITIONED BY (day)
  TBLPROPERTIES ('format-version' = '2', 'write.delete.mode' = 'merge-on-read',
  'write.update.mode' = 'merge-on-read', 'write.merge.mode' = 'merge-on-read',
  'write.delete.granularity' = 'partition');
INSERT INTO s.position_deletes SELECT id, date_add(date '2024-01-01', int(id % 3)), 'w' || id
  FROM range(12);
INSERT INTO s.position_deletes SELECT id, date_add(date '2024-01-01', int(id % 3)), 'x' || id
  FROM range(12, 24);
DELETE FROM s.position_deletes WHERE id % 5 = 0;
ALTER TABLE s.position_deletes SET TBLPROPERTIES ('write.delete.granularity' = 'file');
UPDATE s.position_deletes SET word = 'updated' WHERE id % 7 = 1;
DELETE FROM s.position_deletes WHERE day = date '2024-01-02';
MERGE INTO s.position_deletes t USING (SELECT id FROM range(20, 30)) u ON t.id = u.id
  WHEN MATCHED THEN DELETE WHEN NOT MATCHED THEN INSERT (id, day, word)
  VALUES (u.id, date '2024-01-04', null);
INSERT INTO s.position_deletes VALUES (5, date '2024-01-03', 'again');

CREATE TABLE s.deletion_vectors (id bigint, word string) TBLPROPERTIES (
  'format-version' = '3', 'write.delete.mode' = 'merge-on-read',
  'write.update.mode' = 'merge-on-read');
INSERT INTO s.deletion_vectors SELECT id, 'w' || id FROM range(20);
DELETE FROM s.deletion_vectors WHERE id IN (0, 7, 19);
INSERT INTO s.deletion_vectors SELECT id, 'x' || id FROM range(20, 30);
DELETE FROM s.deletion_vectors WHERE id % 4 = 1;
UPDATE s.deletion_vectors SET word = 'updated' WHERE id = 22;

CREATE TABLE s.upgraded (id bigint, word string) TBLPROPERTIES (
  'format-version' = '1');
INSERT INTO s.upgraded SELECT id, 'one' FROM range(5);
ALTER TABLE s.upgraded SET TBLPROPERTIES ('format-version' = '2',
  'write.delete.mode' = 'merge-on-read');
DELETE FROM s.upgraded WHERE id = 1;
ALTER TABLE s.upgraded SET TBLPROPERTIES ('format-version' = '3');
INSERT INTO s.upgraded SELECT id, 'three' FROM range(5, 10);
DELETE FROM s.upgraded WHERE id IN (2, 7);

CREATE TABLE s.copy_on_write (id bigint, word string) TBLPROPERTIES ('format-version' = '2');
INSERT INTO s.copy_on_write SELECT id, 'w' || id FROM range(20);
UPDATE s.copy_on_write SET word = null WHERE id % 3 = 0;
DELETE FROM s.copy_on_write WHERE id < 5;

CREATE TABLE s.compacted (id bigint, word string) TBLPROPERTIES (
  'format-version' = '2', 'write.delete.mode' = 'merge-on-read');
INSERT INTO s.compacted SELECT id, 'w' || id FROM range(10);
INSERT INTO s.compacted SELECT id, 'w' || id FROM range(10, 20);
DELETE FROM s.compacted WHERE id % 2 = 0;
CALL k2.system.rewrite_data_files(table => 's.compacted',
  options => map('rewrite-all', 'true'));
INSERT INTO s.compacted SELECT id, 'x' || id FROM range(20, 30);
DELETE FROM s.compacted WHERE id % 5 = 0;
CALL k2.system.rewrite_position_delete_files(table => 's.compacted',
  options => map('rewrite-all', 'true'));
CALL k2.system.rewrite_manifests('s.compacted');

-- Schemas that change.
CREATE TABLE s.evolved (id int, price float, amount decimal(9, 2), note string, left int,
  right int) TBLPROPERTIES ('format-version' = '2');
INSERT INTO s.evolved SELECT int(id), float(id / 4), id / 4, 'n' || id, int(id), int(-id)
  FROM range(4);
ALTER TABLE s.evolved ALTER COLUMN id TYPE bigint;
ALTER TABLE s.evolved ALTER COLUMN price TYPE double;
ALTER TABLE s.evolved ALTER COLUMN amount TYPE decimal(20, 2);
ALTER TABLE s.evolved ADD COLUMN added string FIRST;
INSERT INTO s.evolved VALUES ('a', 5000000000, 0.1, 123456789012345678.25, 'n', 5, -5);
ALTER TABLE s.evolved DROP COLUMN note;
ALTER TABLE s.evolved ADD COLUMN note bigint;
ALTER TABLE s.evolved RENAME COLUMN left TO middle;
ALTER TABLE s.evolved RENAME COLUMN right TO left;
ALTER TABLE s.evolved RENAME COLUMN middle TO right;
ALTER TABLE s.evolved ALTER COLUMN amount FIRST;
INSERT INTO s.evolved (id, price, amount, added, note, left, right)
  VALUES (6, 6.5, 6.25, 'b', 66, -6, 6), (7, null, null, null, null, null, null);

CREATE TABLE s.nested (id bigint, who struct<name: string, age: int, at: struct<x: int, y: int>>,
  legs array<struct<qty: int, venue: string>>, tags map<string, struct<v: int>>)
  TBLPROPERTIES ('format-version' = '2');
INSERT INTO s.nested VALUES
  (1, named_struct('name', 'n1', 'age', 1, 'at', named_struct('x', 1, 'y', 2)),
   array(named_struct('qty', 1, 'venue', 'v')), map('k', named_struct('v', 1))),
  (2, null, null, null);
ALTER TABLE s.nested ALTER COLUMN who.age TYPE bigint;
ALTER TABLE s.nested RENAME COLUMN who.name TO full_name;
ALTER TABLE s.nested ADD COLUMN who.at.z int FIRST;
ALTER TABLE s.nested DROP COLUMN who.at.x;
ALTER TABLE s.nested ADD COLUMN legs.element.fee decimal(9, 2);
ALTER TABLE s.nested DROP COLUMN legs.element.venue;
ALTER TABLE s.nested ADD COLUMN legs.element.venue int;
ALTER TABLE s.nested ADD COLUMN tags.value.w string;
INSERT INTO s.nested VALUES
  (3, named_struct('full_name', 'n3', 'age', 5000000000, 'at', named_struct('z', 3, 'y', 4)),
   array(named_struct('qty', 3, 'fee', 1.25, 'venue', 33)),
   map('k', named_struct('v', 3, 'w', 'w3')));

-- Partitions.
CREATE TABLE s.transforms (id bigint, at timestamp, local timestamp_ntz, day date, word string,
  n int, amount decimal(9, 2), raw binary) TBLPROPERTIES ('format-version' = '2');
INSERT INTO s.transforms SELECT id, timestamp '1969-12-31 22:30:00' + make_interval(0, 0, 0, int(id)),
  timestamp_ntz '1969-12-31 22:30:00' + make_interval(0, 0, 0, 0, int(id)),
  date_add(date '1969-12-30', int(id)), 'wörd' || (id % 3), int(id - 3), id - 2.5,
  cast('r' || id AS binary) FROM range(6);
ALTER TABLE s.transforms ADD PARTITION FIELD years(at);
INSERT INTO s.transforms SELECT * FROM s.transforms WHERE id < 3;
ALTER TABLE s.transforms REPLACE PARTITION FIELD years(at) WITH months(at);
ALTER TABLE s.transforms ADD PARTITION FIELD bucket(4, id);
INSERT INTO s.transforms SELECT id + 10, at, local, day, word, n, amount, raw FROM s.transforms
  WHERE id >= 3;
ALTER TABLE s.transforms REPLACE PARTITION FIELD at_month WITH days(at);
ALTER TABLE s.transforms DROP PARTITION FIELD id_bucket_4;
ALTER TABLE s.transforms ADD PARTITION FIELD truncate(2, word);
INSERT INTO s.transforms SELECT id + 20, at, local, day, word, n, amount, raw FROM s.transforms
  WHERE id < 6;
ALTER TABLE s.transforms REPLACE PARTITION FIELD at_day WITH hours(local);
ALTER TABLE s.transforms ADD PARTITION FIELD truncate(10, amount);
INSERT INTO s.transforms SELECT id + 30, at, local, day, word, n, amount, raw FROM s.transforms
  WHERE id BETWEEN 20 AND 25;
ALTER TABLE s.transforms ADD PARTITION FIELD n;
ALTER TABLE s.transforms ADD PARTITION FIELD truncate(1, raw);
ALTER TABLE s.transforms ADD PARTITION FIELD bucket(3, word) AS shard;
INSERT INTO s.transforms VALUES (99, null, null, null, null, null, null, null);
ALTER TABLE s.transforms DROP PARTITION FIELD n;
DELETE FROM s.transforms WHERE id = 1;

CREATE TABLE s.transforms_v1 (id bigint, day date, word string) PARTITIONED BY (word)
  TBLPROPERTIES ('format-version' = '1');
INSERT INTO s.transforms_v1 VALUES (1, date '2024-01-01', 'a b/c=d%'), (2, null, null);
ALTER TABLE s.transforms_v1 DROP PARTITION FIELD word;
ALTER TABLE s.transforms_v1 ADD PARTITION FIELD months(day);
INSERT INTO s.transforms_v1 VALUES (3, date '2024-02-01', 'a'), (4, null, 'b');

-- Names.
CREATE TABLE s.names (`a.b` int, `two words` string, `Upper` int, `größe_☃` double,
  `select` int, `x``"y` int, `in.side` struct<`c.d`: int, `E f`: string>, `_under` int,
  `1st` int) PARTITIONED BY (`two words`, bucket(2, `a.b`)) TBLPROPERTIES ('format-version' = '2');
INSERT INTO s.names VALUES (1, 'p q', 1, 1.5, 1, 1, named_struct('c.d', 1, 'E f', 'f'), 1, 1),
  (2, 'a/b=c%25 ü', 2, 2.5, 2, 2, null, 2, 2), (null, null, null, null, null, null, null, null,
  null);

-- Branches, tags, and what was undone.
CREATE TABLE s.branches (id bigint, word string) TBLPROPERTIES ('format-version' = '2');
INSERT INTO s.branches VALUES (1, 'main');
ALTER TABLE s.branches CREATE TAG `first.one`;
ALTER TABLE s.branches CREATE BRANCH audit;
INSERT INTO s.branches.branch_audit VALUES (2, 'audit');
INSERT INTO s.branches VALUES (3, 'main');
ALTER TABLE s.branches ADD COLUMN later int;
INSERT INTO s.branches VALUES (4, 'main', 4);
INSERT OVERWRITE s.branches VALUES (5, 'wrong', 5);

-- Files that are not Parquet, and types of format version 3.
CREATE TABLE s.avro_files (id bigint, word string) TBLPROPERTIES (
  'format-version' = '2', 'write.format.default' = 'avro');
INSERT INTO s.avro_files VALUES (1, 'a'), (2, null);
CREATE TABLE s.orc_files (id bigint, word string) TBLPROPERTIES (
  'format-version' = '2', 'write.format.default' = 'orc');
INSERT INTO s.orc_files VALUES (1, 'a'), (2, null);
CREATE TABLE s.variants (id bigint, v variant) TBLPROPERTIES ('format-version' = '3');
INSERT INTO s.variants SELECT 1, parse_json('{"a": 1}');
CREATE TABLE s.empty (id bigint, word string) TBLPROPERTIES ('format-version' = '2');
