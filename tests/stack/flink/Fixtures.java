import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Map;
import java.util.TreeMap;
import org.apache.flink.api.common.RuntimeExecutionMode;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.apache.flink.table.api.bridge.java.StreamTableEnvironment;
import org.apache.iceberg.catalog.Namespace;
import org.apache.iceberg.catalog.TableIdentifier;
import org.apache.iceberg.jdbc.JdbcCatalog;

/**
 * Writes the tables of tests/fixtures/iceberg/flink-* into a bucket: upserts, so equality deletes.
 *
 * <p>Run by tests/stack/fixtures.py: Fixtures ENDPOINT KEY SECRET LOCATION SCRIPT ANSWERS SCRATCH
 * BUCKET.
 * What the tables hold is read by Iceberg's own generic reader, which applies all deletes.
 */
public final class Fixtures {
  public static void main(String[] args) throws Exception {
    Map<String, String> options = new TreeMap<>();
    options.put("uri", "jdbc:sqlite:" + Path.of(args[6]).resolve("catalog.db"));
    options.put("jdbc.schema-version", "V1");
    options.put("warehouse", args[3]);
    options.put("io-impl", "org.apache.iceberg.aws.s3.S3FileIO");
    options.put("client.region", "us-east-1");
    options.put("s3.endpoint", args[0]);
    options.put("s3.path-style-access", "true");
    options.put("s3.access-key-id", args[1]);
    options.put("s3.secret-access-key", args[2]);
    StringBuilder with = new StringBuilder();
    options.forEach((key, value) -> with.append(", '" + key + "' = '" + value + "'"));
    Configuration configuration = new Configuration();
    configuration.setString("rest.bind-address", "127.0.0.1");
    configuration.setString("classloader.check-leaked-classloader", "false");
    configuration.setString("table.exec.iceberg.use-v2-sink", "false");
    StreamExecutionEnvironment environment =
        StreamExecutionEnvironment.createLocalEnvironment(1, configuration);
    environment.setRuntimeMode(RuntimeExecutionMode.STREAMING);
    environment.enableCheckpointing(500);
    StreamTableEnvironment sql = StreamTableEnvironment.create(environment);
    sql.executeSql("CREATE CATALOG k2 WITH ('type' = 'iceberg', "
        + "'catalog-impl' = 'org.apache.iceberg.jdbc.JdbcCatalog'" + with + ")");
    sql.executeSql("CREATE DATABASE IF NOT EXISTS k2.f");
    for (String statement : Files.readString(Path.of(args[4])).split(";\\s*\\n")) {
      String text = statement.replaceAll("(?m)^\\s*--.*$", "").strip();
      if (!text.isEmpty()) {
        var result = sql.executeSql(text);
        if (text.startsWith("INSERT")) {
          result.await();
        }
      }
    }
    Thread.currentThread().setContextClassLoader(Fixtures.class.getClassLoader());
    JdbcCatalog catalog = new JdbcCatalog();
    catalog.initialize("k2", options);
    for (TableIdentifier each : catalog.listTables(Namespace.of("f"))) {
      Answers.write(catalog.loadTable(each), Answers::generic, Path.of(args[5]));
    }
    System.exit(0);
  }
}
