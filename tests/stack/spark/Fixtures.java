import java.io.IOException;
import java.math.BigDecimal;
import java.net.URI;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.LocalDate;
import java.time.LocalDateTime;
import java.time.LocalTime;
import java.time.OffsetDateTime;
import java.time.ZoneOffset;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.UUID;
import org.apache.iceberg.DataFile;
import org.apache.iceberg.DataFiles;
import org.apache.iceberg.FileFormat;
import org.apache.iceberg.Metrics;
import org.apache.iceberg.MetricsConfig;
import org.apache.iceberg.PartitionSpec;
import org.apache.iceberg.Schema;
import org.apache.iceberg.Table;
import org.apache.iceberg.catalog.Namespace;
import org.apache.iceberg.catalog.TableIdentifier;
import org.apache.iceberg.data.GenericRecord;
import org.apache.iceberg.data.Record;
import org.apache.iceberg.data.parquet.GenericParquetWriter;
import org.apache.iceberg.expressions.Literal;
import org.apache.iceberg.io.FileAppender;
import org.apache.iceberg.io.OutputFile;
import org.apache.iceberg.jdbc.JdbcCatalog;
import org.apache.iceberg.mapping.MappingUtil;
import org.apache.iceberg.mapping.NameMapping;
import org.apache.iceberg.mapping.NameMappingParser;
import org.apache.iceberg.parquet.Parquet;
import org.apache.iceberg.parquet.ParquetUtil;
import org.apache.iceberg.types.Types;
import org.apache.spark.sql.Row;
import org.apache.spark.sql.SparkSession;
import scala.jdk.javaapi.CollectionConverters;

/**
 * Writes the tables of tests/fixtures/iceberg/spark-* into a bucket, and what Spark reads of them.
 *
 * <p>Run by tests/stack/fixtures.py: Fixtures ENDPOINT KEY SECRET LOCATION SCRIPT ANSWERS SCRATCH
 * BUCKET.
 * The script's statements are Spark SQL; what Spark has no types for comes from Iceberg's core API.
 */
public final class Fixtures {
  private final SparkSession spark;
  private final JdbcCatalog catalog = new JdbcCatalog();
  private final Path scratch;
  private final Path bucket;

  public static void main(String[] args) throws Exception {
    new Fixtures(args).run(Path.of(args[4]), Path.of(args[5]));
  }

  private Fixtures(String[] args) {
    scratch = Path.of(args[6]);
    bucket = Path.of(args[7]);
    Map<String, String> options = new TreeMap<>();
    options.put("uri", "jdbc:sqlite:" + scratch.resolve("catalog.db"));
    options.put("jdbc.schema-version", "V1");
    options.put("warehouse", args[3]);
    options.put("io-impl", "org.apache.iceberg.aws.s3.S3FileIO");
    options.put("client.region", "us-east-1");
    options.put("s3.endpoint", args[0]);
    options.put("s3.path-style-access", "true");
    options.put("s3.access-key-id", args[1]);
    options.put("s3.secret-access-key", args[2]);
    catalog.initialize("k2", options);
    SparkSession.Builder builder =
        SparkSession.builder()
            .master("local[1]")
            .config("spark.ui.enabled", "false")
            .config("spark.sql.session.timeZone", "UTC")
            .config("spark.sql.shuffle.partitions", "1")
            .config("spark.sql.datetime.java8API.enabled", "true")
            .config("spark.sql.warehouse.dir", scratch.resolve("spark").toString())
            .config("spark.sql.extensions",
                "org.apache.iceberg.spark.extensions.IcebergSparkSessionExtensions")
            .config("spark.sql.defaultCatalog", "k2")
            .config("spark.sql.catalog.k2", "org.apache.iceberg.spark.SparkCatalog")
            .config("spark.sql.catalog.k2.catalog-impl", "org.apache.iceberg.jdbc.JdbcCatalog")
            .config("spark.sql.catalog.k2.cache-enabled", "false");
    options.forEach((key, value) -> builder.config("spark.sql.catalog.k2." + key, value));
    spark = builder.getOrCreate();
  }

  private void run(Path script, Path answers) throws Exception {
    spark.sql("CREATE NAMESPACE IF NOT EXISTS s");
    for (String statement : Files.readString(script).split(";\\s*\\n")) {
      String text = statement.replaceAll("(?m)^\\s*--.*$", "").strip();
      if (!text.isEmpty()) {
        spark.sql(text).collectAsList();
      }
    }
    nanoseconds();
    identifiers();
    defaults();
    migrated("migrated_v2", 2);
    migrated("migrated_v1", 1);
    spark.sql("DELETE FROM s.migrated_v2 WHERE id = 2");
    for (TableIdentifier each : catalog.listTables(Namespace.of("s"))) {
      Answers.write(catalog.loadTable(each), this::rows, answers);
    }
    spark.stop();
  }

  // --- tables that Spark SQL cannot declare -----------------------------------------------------

  private void nanoseconds() throws IOException {
    Schema schema = new Schema(
        Types.NestedField.required(1, "id", Types.LongType.get()),
        Types.NestedField.optional(2, "at", Types.TimestampNanoType.withZone()),
        Types.NestedField.optional(3, "local", Types.TimestampNanoType.withoutZone()));
    Table table = catalog.createTable(TableIdentifier.of("s", "nanoseconds"), schema,
        PartitionSpec.unpartitioned(), Map.of("format-version", "3"));
    LocalDateTime first = LocalDateTime.of(1969, 12, 31, 23, 59, 59, 999_999_999);
    append(table, List.of(
        row(table, 1L, first.atOffset(ZoneOffset.UTC), first),
        row(table, 2L, OffsetDateTime.parse("2024-02-29T12:00:00.123456789Z"),
            LocalDateTime.parse("2024-02-29T12:00:00.123456789")),
        row(table, 3L, null, null)));
  }

  private void identifiers() throws IOException {
    Schema schema = new Schema(
        Types.NestedField.required(1, "id", Types.LongType.get()),
        Types.NestedField.optional(2, "uuid", Types.UUIDType.get()),
        Types.NestedField.optional(3, "fixed", Types.FixedType.ofLength(5)),
        Types.NestedField.optional(4, "time", Types.TimeType.get()),
        Types.NestedField.optional(5, "bytes", Types.BinaryType.get()));
    PartitionSpec spec = PartitionSpec.builderFor(schema).bucket("uuid", 4).build();
    Table table = catalog.createTable(TableIdentifier.of("s", "identifiers"), schema, spec,
        Map.of("format-version", "2"));
    UUID one = UUID.fromString("f79c3e09-677c-4bbd-a479-3f349cb785e7");
    appendTo(table, List.of(row(table, 1L, one, new byte[] {0, 1, 2, -1, 127},
        LocalTime.of(23, 59, 59, 999_999_000), ByteBuffer.wrap(new byte[] {-1, 0}))), one);
    appendTo(table, List.of(row(table, 2L, null, null, null, null)), null);
  }

  private void defaults() throws IOException {
    Schema schema = new Schema(Types.NestedField.required(1, "id", Types.LongType.get()));
    Table table = catalog.createTable(TableIdentifier.of("s", "defaults"), schema,
        PartitionSpec.unpartitioned(), Map.of("format-version", "3"));
    append(table, List.of(row(table, 1L), row(table, 2L)));
    table.updateSchema()
        .addColumn(null, "count", Types.IntegerType.get(), null, Literal.of(7))
        .addColumn(null, "venue", Types.StringType.get(), null, Literal.of("XNYS"))
        .addColumn(null, "price", Types.DecimalType.of(9, 2), null,
            Literal.of(new BigDecimal("1.25")))
        .addColumn(null, "day", Types.DateType.get(), null, Literal.of("2024-02-29")
            .to(Types.DateType.get()))
        .commit();
    append(table, List.of(row(table, 3L, null, null, null, null),
        row(table, 4L, 8, "XNAS", new BigDecimal("2.50"), LocalDate.of(2024, 3, 1))));
  }

  /** Parquet files of Spark's own (INT96 timestamps, no field ids) behind a name mapping. */
  private void migrated(String name, int version) throws IOException {
    String folder = scratch.resolve(name).toString();
    spark.sql("SELECT id, cast(id / 4 AS decimal(9, 2)) AS amount, "
        + "timestamp '1950-01-01 00:00:00.000001' + make_interval(id * 30) AS at, "
        + "named_struct('First.Name', 'n' || id) AS who, array(id, null) AS ids "
        + "FROM range(1, 5)").coalesce(1).write()
        .option("parquet.block.size", "1048576").parquet(folder);
    Schema schema = new Schema(
        Types.NestedField.optional(1, "key", Types.LongType.get()),
        Types.NestedField.optional(2, "amount", Types.DecimalType.of(9, 2)),
        Types.NestedField.optional(3, "at", Types.TimestampType.withZone()),
        Types.NestedField.optional(4, "who", Types.StructType.of(
            Types.NestedField.optional(5, "First.Name", Types.StringType.get()))),
        Types.NestedField.optional(6, "ids", Types.ListType.ofOptional(7, Types.LongType.get())));
    Table table = catalog.createTable(TableIdentifier.of("s", name), schema,
        PartitionSpec.unpartitioned(), Map.of("format-version", "" + version,
            "write.delete.mode", "merge-on-read"));
    String mapping = NameMappingParser.toJson(MappingUtil.create(table.schema()))
        .replaceFirst("\"key\"", "\"id\"");
    table.updateProperties().set("schema.name-mapping.default", mapping).commit();
    table.updateSchema().renameColumn("key", "id").commit();
    Path found;
    try (var files = Files.list(Path.of(folder))) {
      found = files.filter(file -> file.toString().endsWith(".parquet")).findFirst().orElseThrow();
    }
    String path = table.location() + "/data/part-0.snappy.parquet";
    Path target = bucket.resolve(URI.create(path).getPath().substring(1));
    Files.createDirectories(target.getParent());
    Files.copy(found, target);
    NameMapping names = NameMappingParser.fromJson(mapping);
    Metrics metrics = ParquetUtil.fileMetrics(
        table.io().newInputFile(path), MetricsConfig.forTable(table), names);
    table.newAppend().appendFile(DataFiles.builder(table.spec()).withPath(path)
        .withFormat(FileFormat.PARQUET).withFileSizeInBytes(Files.size(target))
        .withMetrics(metrics).build()).commit();
  }

  private static Record row(Table table, Object... values) {
    GenericRecord record = GenericRecord.create(table.schema());
    for (int at = 0; at < values.length; at++) {
      record.set(at, values[at]);
    }
    return record;
  }

  private static void append(Table table, List<Record> rows) throws IOException {
    table.newAppend().appendFile(file(table, rows, DataFiles.builder(table.spec()))).commit();
  }

  private static void appendTo(Table table, List<Record> rows, UUID uuid) throws IOException {
    DataFiles.Builder builder = DataFiles.builder(table.spec());
    var partition = GenericRecord.create(table.spec().partitionType());
    var bucket = org.apache.iceberg.transforms.Transforms.bucket(4).bind(Types.UUIDType.get());
    partition.set(0, uuid == null ? null : bucket.apply(uuid));
    table.newAppend().appendFile(file(table, rows, builder.withPartition(partition))).commit();
  }

  private static DataFile file(Table table, List<Record> rows, DataFiles.Builder builder)
      throws IOException {
    OutputFile out = table.io().newOutputFile(
        table.location() + "/data/" + UUID.randomUUID() + ".parquet");
    FileAppender<Record> writer = Parquet.write(out).forTable(table)
        .createWriterFunc(GenericParquetWriter::create).build();
    try (writer) {
      writer.addAll(rows);
    }
    return builder.withPath(out.location()).withFormat(FileFormat.PARQUET)
        .withFileSizeInBytes(writer.length()).withMetrics(writer.metrics()).build();
  }

  /** What Spark reads, or Iceberg's generic reader where Spark cannot. */
  private List<Object> rows(Table table, Long snapshot) throws IOException {
    String name = table.name().replaceFirst(".*\\.", "");
    if (name.matches("nanoseconds|identifiers|defaults")) {
      return Answers.generic(table, snapshot);
    }
    String version = snapshot == null ? "" : " VERSION AS OF " + snapshot;
    List<Object> rows = new ArrayList<>();
    for (Row row : spark.sql("SELECT * FROM s." + name + version).collectAsList()) {
      rows.add(Answers.plain(javaValue(row)));
    }
    return rows;
  }

  private static Object javaValue(Object value) {
    if (value instanceof Row row) {
      List<Object> list = new ArrayList<>();
      for (int at = 0; at < row.size(); at++) {
        list.add(javaValue(row.get(at)));
      }
      return list;
    } else if (value instanceof scala.collection.Map<?, ?> map) {
      Map<Object, Object> held = new LinkedHashMap<>();
      CollectionConverters.asJava(map)
          .forEach((key, each) -> held.put(javaValue(key), javaValue(each)));
      return held;
    } else if (value instanceof scala.collection.Iterable<?> values) {
      List<Object> list = new ArrayList<>();
      CollectionConverters.asJava(values).forEach(each -> list.add(javaValue(each)));
      return list;
    }
    return value;
  }
}
