// Trades by symbol with database/sql: go get github.com/apache/arrow-go/v18, go run trades.go
package main

import (
	"database/sql"
	"fmt"
	"log"
	"os"
	"strings"

	_ "github.com/apache/arrow-go/v18/arrow/flight/flightsql/driver"
)

func main() {
	uri := os.Getenv("URI")
	if uri == "" {
		uri = "grpc://127.0.0.1:32010"
	}
	db, err := sql.Open("flightsql", strings.Replace(uri, "grpc://", "flightsql://", 1))
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	rows, err := db.Query(`select symbol, count(*) as trades from market_data.trades
		where symbol <> ? group by symbol order by symbol`, "TEST")
	if err != nil {
		log.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var symbol string
		var trades int64
		if err := rows.Scan(&symbol, &trades); err != nil {
			log.Fatal(err)
		}
		fmt.Println(symbol, trades)
	}
	if err := rows.Err(); err != nil {
		log.Fatal(err)
	}
}
