import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.ResultSet;
import java.sql.Statement;
import java.sql.Types;

/**
 * Reads a result of each statement on stdin through JDBC, every value of every row, and prints a
 * line with the rows and the sum of the values' hash codes, so that none of it is left out.
 */
public final class Fetch {
  public static void main(String[] arguments) throws Exception {
    var lines = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
    try (Connection connection = DriverManager.getConnection(arguments[0]);
        Statement statement = connection.createStatement()) {
      for (String sql = lines.readLine(); sql != null; sql = lines.readLine()) {
        long rows = 0;
        long sum = 0;
        try (ResultSet result = statement.executeQuery(sql)) {
          int columns = result.getMetaData().getColumnCount();
          boolean[] zoned = new boolean[columns];  // Avatica's getObject does not know these
          for (int i = 0; i < columns; i++) {
            zoned[i] = result.getMetaData().getColumnType(i + 1) == Types.TIMESTAMP_WITH_TIMEZONE;
          }
          for (; result.next(); rows++) {
            for (int i = 1; i <= columns; i++) {
              Object value = zoned[i - 1] ? result.getTimestamp(i) : result.getObject(i);
              sum += value == null ? 0 : value.hashCode();
            }
          }
        }
        System.out.println(rows + " " + sum);
      }
    }
  }
}
