import java.sql.DriverManager;

/**
 * Trades by symbol over JDBC. With a JDK and the driver's jar:
 * java --add-opens=java.base/java.nio=ALL-UNNAMED -cp flight-sql-jdbc-driver.jar Trades.java
 */
public final class Trades {
  public static void main(String[] arguments) throws Exception {
    String uri = System.getenv().getOrDefault("URI", "grpc://127.0.0.1:32010");
    String url = uri.replace("grpc://", "jdbc:arrow-flight-sql://") + "/?useEncryption=false";
    String sql = "select symbol, count(*) as trades from market_data.trades where price > ?"
        + " group by symbol order by symbol";
    try (var connection = DriverManager.getConnection(url);
        var statement = connection.prepareStatement(sql)) {
      // the driver wants a decimal with the very scale of the column
      statement.setBigDecimal(1, new java.math.BigDecimal("0.5").setScale(4));
      var rows = statement.executeQuery();
      while (rows.next()) {
        System.out.println(rows.getString("symbol") + " " + rows.getLong("trades"));
      }
    }
  }
}
