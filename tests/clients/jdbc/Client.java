import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.lang.reflect.Array;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Method;
import java.math.BigDecimal;
import java.nio.charset.StandardCharsets;
import java.sql.Connection;
import java.sql.DatabaseMetaData;
import java.sql.Date;
import java.sql.DriverManager;
import java.sql.ParameterMetaData;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.ResultSetMetaData;
import java.sql.SQLException;
import java.sql.Statement;
import java.sql.Timestamp;
import java.sql.Types;
import java.util.ArrayList;
import java.util.Collection;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;

/**
 * Uses the stock JDBC driver and prints what it saw, one JSON object per line.
 *
 * <pre>
 * Client all URL          queries, types, parameters, metadata, cancelling
 * Client connect URL...   who the server takes the caller for
 * Client errors URL       runs the statements that it reads, one per line, and prints their errors
 * </pre>
 */
public final class Client {
  public static void main(String[] arguments) throws Exception {
    switch (arguments[0]) {
      case "all" -> everything(arguments[1]);
      case "connect" -> {
        for (int i = 1; i < arguments.length; i++) {
          connect(arguments[i]);
        }
      }
      case "errors" -> errors(arguments[1]);
      default -> throw new IllegalArgumentException(arguments[0]);
    }
  }

  private static void connect(String url) {
    try (Connection connection = DriverManager.getConnection(url);
        Statement statement = connection.createStatement()) {
      print("connect", rows(statement.executeQuery("select 40 + 2 as answer")));
    } catch (SQLException error) {
      print("connect", seen(error));
    }
  }

  private static void errors(String url) throws Exception {
    var lines = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
    try (Connection connection = DriverManager.getConnection(url)) {
      for (String sql = lines.readLine(); sql != null; sql = lines.readLine()) {
        try (Statement statement = connection.createStatement();
            ResultSet result = statement.executeQuery(sql)) {
          print("error", rows(result));
        } catch (SQLException | RuntimeException error) {  // the latter in the middle of the rows
          print("error", seen(error));
        }
      }
    }
  }

  private static void everything(String url) throws Exception {
    try (Connection connection = DriverManager.getConnection(url)) {
      queries(connection);
      parameters(connection);
      metadata(connection);
      methods(connection.getMetaData());
      cancel(connection);
      session(connection);
    }
    catalog(url + "&catalog=lake");
  }

  /** With catalog=, close() of driver 18.3.0 closes the session twice, and fails the second time. */
  private static void catalog(String url) throws SQLException {
    Connection connection = DriverManager.getConnection(url);
    print("catalog", rows(connection.createStatement().executeQuery("select 1 as one")));
    try {
      connection.close();
      print("catalog_closed", null);
    } catch (SQLException error) {
      print("catalog_closed", error.getMessage());
    }
  }

  private static void queries(Connection connection) throws SQLException {
    try (Statement statement = connection.createStatement()) {
      print("query", rows(statement.executeQuery("select * from demo.numbers order by n")));
      print("empty", rows(statement.executeQuery("select * from demo.numbers where n > 9")));
      ResultSet types = statement.executeQuery("select * from demo.types order by id");
      print("columns", columns(types.getMetaData()));
      print("types", rows(types));
      print("updates", statement.execute("select 1"));
    }
    List<Object> counts = new ArrayList<>();
    for (int i = 0; i < 3; i++) {
      try (Statement statement = connection.createStatement();
          ResultSet result = statement.executeQuery("select count(*) from demo.numbers")) {
        result.next();
        counts.add(result.getLong(1));
      }
    }
    print("again", counts);
  }

  private static void parameters(Connection connection) throws SQLException {
    String sql = "select n from demo.numbers where n > ? and label = ? order by n";
    try (PreparedStatement statement = connection.prepareStatement(sql)) {
      ParameterMetaData described = statement.getParameterMetaData();
      List<Object> names = new ArrayList<>();
      for (int i = 1; i <= described.getParameterCount(); i++) {
        names.add(described.getParameterTypeName(i));
      }
      print("parameter_types", names);
      print("prepared_columns", columns(statement.getMetaData()));
      List<Object> answers = new ArrayList<>();
      for (int least : new int[] {1, 4, 5}) {
        statement.setLong(1, least);
        statement.setString(2, least == 1 ? "two" : "five");
        answers.add(rows(statement.executeQuery()));
      }
      statement.setLong(1, 0);
      statement.setNull(2, Types.VARCHAR);
      answers.add(rows(statement.executeQuery()));
      print("prepared", answers);
    }
    typed(connection);
  }

  private interface Setter {
    void set(PreparedStatement statement) throws SQLException;
  }

  /** One parameter per type, compared with the column of that type: one row must come back. */
  private static void typed(Connection connection) throws SQLException {
    Map<String, Setter> setters = new LinkedHashMap<>();
    setters.put("yes", s -> s.setBoolean(1, true));
    setters.put("small", s -> s.setInt(1, -7));
    setters.put("big", s -> s.setLong(1, 1L << 62));
    setters.put("real", s -> s.setFloat(1, 0.5f));
    setters.put("double", s -> s.setDouble(1, -1.25e300));
    setters.put("price", s -> s.setBigDecimal(1, new BigDecimal("12345678901234.5678")));
    setters.put("day", s -> s.setDate(1, Date.valueOf("2024-02-29")));
    setters.put("date_trunc('millisecond', at)",
        s -> s.setTimestamp(1, Timestamp.valueOf("2024-02-29 12:30:15.123")));
    setters.put("text", s -> s.setString(1, "t\u00e4xt \u2713"));
    setters.put("bytes", s -> s.setBytes(1, new byte[] {0, (byte) 0xff}));
    Map<String, Object> found = new LinkedHashMap<>();
    for (var entry : setters.entrySet()) {
      String sql = "select id from demo.types where " + entry.getKey() + " = ?";
      try (PreparedStatement statement = connection.prepareStatement(sql)) {
        entry.getValue().set(statement);
        found.put(entry.getKey(), rows(statement.executeQuery()));
      } catch (SQLException | RuntimeException error) {
        found.put(entry.getKey(), error.toString());
      }
    }
    print("parameters", found);
    String sql = "select cast(? as timestamp) = at, ?::int, cast(? as varchar), cast(? as date) "
        + "from (select date_trunc('millisecond', at) as at from demo.types where id = 1)";
    try (PreparedStatement statement = connection.prepareStatement(sql)) {
      statement.setTimestamp(1, Timestamp.valueOf("2024-02-29 12:30:15.123"));
      statement.setInt(2, 17);
      statement.setString(3, "t\u00e4xt");
      statement.setDate(4, Date.valueOf("2024-02-29"));
      List<Object> row = new ArrayList<>();
      try (ResultSet result = statement.executeQuery()) {
        result.next();
        for (int i = 1; i <= 4; i++) {
          row.add(String.valueOf(result.getObject(i)));
        }
      }
      print("casts", row);
    } catch (SQLException | RuntimeException error) {
      print("casts", error.toString());
    }
  }

  private static void metadata(Connection connection) throws SQLException {
    DatabaseMetaData all = connection.getMetaData();
    print("catalogs", rows(all.getCatalogs()));
    print("schemas", rows(all.getSchemas()));
    print("schemas_filtered", rows(all.getSchemas("lake", "de%")));
    print("table_types", rows(all.getTableTypes()));
    print("tables", rows(all.getTables("lake", "demo", "%", new String[] {"BASE TABLE"})));
    print("tables_none", rows(all.getTables("lake", "demo", "nothing%", null)));
    print("table_columns", rows(all.getColumns("lake", "demo", "%", "%")));
    print("primary_keys", rows(all.getPrimaryKeys("lake", "demo", "numbers")));
    print("imported_keys", rows(all.getImportedKeys("lake", "demo", "numbers")));
    print("exported_keys", rows(all.getExportedKeys("lake", "demo", "numbers")));
    print("cross_reference",
        rows(all.getCrossReference("lake", "demo", "numbers", "lake", "demo", "types")));
    print("type_info", rows(all.getTypeInfo()));
    print("product", all.getDatabaseProductName());
  }

  /** Every method of DatabaseMetaData that takes nothing, or a number, is called. */
  private static void methods(DatabaseMetaData all) throws Exception {
    Map<String, Object> answers = new TreeMap<>();
    Map<String, Object> failed = new TreeMap<>();
    for (Method method : DatabaseMetaData.class.getMethods()) {
      if (method.getDeclaringClass() != DatabaseMetaData.class || method.isDefault()) {
        continue;
      }
      Class<?>[] takes = method.getParameterTypes();
      Object[] given = new Object[takes.length];
      boolean callable = true;
      for (int i = 0; i < takes.length; i++) {
        given[i] = i == 0 ? ResultSet.TYPE_FORWARD_ONLY : ResultSet.CONCUR_READ_ONLY;
        callable &= takes[i] == int.class;
      }
      if (method.getName().matches(".*(Isolation|Holdability).*") && takes.length == 1) {
        given[0] = 1;
      }
      if (!callable || method.getName().equals("getConnection")) {
        continue;
      }
      try {
        Object answer = method.invoke(all, given);
        answers.put(method.getName(), answer instanceof ResultSet set ? rows(set) : answer);
      } catch (InvocationTargetException error) {
        failed.put(method.getName(), String.valueOf(error.getCause()));
      }
    }
    print("methods", Map.of("answers", answers, "failed", failed));
  }

  private static void cancel(Connection connection) throws Exception {
    StringBuilder from = new StringBuilder("demo.numbers t0");
    for (int i = 1; i < 12; i++) {
      from.append(", demo.numbers t").append(i);
    }
    try (Statement statement = connection.createStatement()) {
      ResultSet result = statement.executeQuery("select t0.n, t1.label from " + from);
      result.next();
      statement.cancel();
      long read = 1;
      while (result.next()) {
        read++;
      }
      print("cancel", Map.of("read", read));
    } catch (SQLException error) {
      print("cancel", seen(error));
    }
    try (Statement statement = connection.createStatement()) {
      print("after_cancel", rows(statement.executeQuery("select 1 as one")));
    }
  }

  /** SET and its kind, by every way that JDBC has of sending a statement. */
  private static void session(Connection connection) throws SQLException {
    Map<String, Object> found = new LinkedHashMap<>();
    try (Statement statement = connection.createStatement()) {
      found.put("execute", statement.execute("SET TIME ZONE 'Europe/Zurich'"));
      found.put("count", statement.getUpdateCount());
      found.put("update", statement.executeUpdate("USE lake.demo"));
      found.put("numbers", rows(statement.executeQuery("select count(*) as n from numbers")));
      found.put("shown", rows(statement.executeQuery("SHOW time_zone")));
      found.put("all", rows(statement.executeQuery("SHOW ALL")));
    }
    try (PreparedStatement statement = connection.prepareStatement("RESET ALL")) {
      found.put("prepared", statement.executeUpdate());
    }
    try (Statement statement = connection.createStatement()) {
      found.put("reset", rows(statement.executeQuery("SHOW TIME ZONE")));
      statement.execute("SET colour = 'blue'");
    } catch (SQLException error) {
      found.put("unknown", seen(error));
    }
    print("session", found);
  }

  private static Map<String, Object> seen(Exception error) {
    Map<String, Object> found = new LinkedHashMap<>();
    found.put("class", error.getClass().getName());
    found.put("message", String.valueOf(error.getMessage()));
    Throwable root = error;
    while (root.getCause() != null) {
      root = root.getCause();
    }
    found.put("root", root.toString());
    return found;
  }

  private static List<Object> columns(ResultSetMetaData described) throws SQLException {
    List<Object> found = new ArrayList<>();
    for (int i = 1; i <= described.getColumnCount(); i++) {
      Map<String, Object> column = new LinkedHashMap<>();
      column.put("name", described.getColumnName(i));
      column.put("type", described.getColumnType(i));
      column.put("type_name", described.getColumnTypeName(i));
      column.put("precision", described.getPrecision(i));
      column.put("scale", described.getScale(i));
      column.put("nullable", described.isNullable(i));
      found.add(column);
    }
    return found;
  }

  private static List<Object> rows(ResultSet result) throws SQLException {
    try (result) {
      ResultSetMetaData described = result.getMetaData();
      List<Object> found = new ArrayList<>();
      while (result.next()) {
        Map<String, Object> row = new LinkedHashMap<>();
        for (int i = 1; i <= described.getColumnCount(); i++) {
          row.put(described.getColumnLabel(i), cell(result, i));
        }
        found.add(row);
      }
      return found;
    }
  }

  /** What the driver gives without being told a type; its own words where it gives nothing. */
  private static Object cell(ResultSet result, int column) throws SQLException {
    try {
      Object value = result.getObject(column);
      if (result.wasNull()) {
        return null;
      }
      // An array's memory goes with its row's batch.
      return value instanceof java.sql.Array array ? elements(array) : value;
    } catch (RuntimeException error) {
      Timestamp value = result.getTimestamp(column);
      return value == null ? null : Map.of("refused", error.toString(), "instant", value.toInstant());
    }
  }

  private static List<Object> elements(java.sql.Array array) throws SQLException {
    Object values = array.getArray();
    List<Object> found = new ArrayList<>();
    for (int i = 0; i < Array.getLength(values); i++) {
      found.add(Array.get(values, i));
    }
    return found;
  }

  // --- JSON -------------------------------------------------------------------------------------

  private static void print(String step, Object value) {
    StringBuilder out = new StringBuilder("{\"step\":");
    write(out, step);
    out.append(",\"value\":");
    write(out, value);
    byte[] line = out.append("}\n").toString().getBytes(StandardCharsets.UTF_8);
    System.out.write(line, 0, line.length);
    System.out.flush();
  }

  private static void write(StringBuilder out, Object value) {
    if (value == null || value instanceof Boolean) {
      out.append(value);
    } else if (value instanceof Integer || value instanceof Long) {
      out.append(value);
    } else if (value instanceof Map<?, ?> map) {
      separated(out, '{', '}', map.entrySet());
    } else if (value instanceof Map.Entry<?, ?> entry) {
      write(out, String.valueOf(entry.getKey()));
      out.append(':');
      write(out, entry.getValue());
    } else if (value instanceof Collection<?> items) {
      separated(out, '[', ']', items);
    } else if (value instanceof byte[] bytes) {
      write(out, java.util.HexFormat.of().formatHex(bytes));
    } else {
      text(out, value instanceof BigDecimal number ? number.toPlainString() : value.toString());
    }
  }

  private static void separated(StringBuilder out, char open, char close, Collection<?> items) {
    out.append(open);
    boolean first = true;
    for (Object item : items) {
      out.append(first ? "" : ",");
      write(out, item);
      first = false;
    }
    out.append(close);
  }

  private static void text(StringBuilder out, String value) {
    out.append('"');
    for (char c : value.toCharArray()) {
      if (c == '"' || c == '\\' || c < ' ') {
        out.append(String.format("\\u%04x", (int) c));
      } else {
        out.append(c);
      }
    }
    out.append('"');
  }
}
