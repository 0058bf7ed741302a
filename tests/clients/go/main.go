// Uses the stock database/sql driver of arrow-go and prints what it saw, one JSON object per line.
//
//	client all DSN                        queries, types, parameters, errors, cancelling
//	client connect certificate.pem DSN... who the server takes the caller for
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/apache/arrow-go/v18/arrow/flight/flightsql/driver"
)

func main() {
	var err error
	switch os.Args[1] {
	case "all":
		err = everything(os.Args[2])
	case "connect":
		err = connect(os.Args[2], os.Args[3:])
	default:
		err = fmt.Errorf("unknown mode %q", os.Args[1])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func show(step string, value any) {
	line, err := json.Marshal(map[string]any{"step": step, "value": value})
	if err != nil {
		panic(err)
	}
	fmt.Println(string(line))
}

// showRows shows the rows of a statement, or its error.
func showRows(step string, db *sql.DB, query string, args ...any) {
	found, err := rowsOf(db, query, args...)
	if err != nil {
		show(step, map[string]any{"error": err.Error()})
		return
	}
	show(step, found)
}

func connect(certificate string, dsns []string) error {
	pem, err := os.ReadFile(certificate)
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	if err := driver.RegisterTLSConfig("trusted", &tls.Config{RootCAs: roots}); err != nil {
		return err
	}
	for _, dsn := range dsns {
		db, err := sql.Open("flightsql", dsn)
		if err != nil {
			return err
		}
		showRows("connect", db, "select 40 + 2 as answer")
		db.Close()
	}
	return nil
}

func everything(dsn string) error {
	db, err := sql.Open("flightsql", dsn)
	if err != nil {
		return err
	}
	defer db.Close()
	showRows("query", db, "select * from demo.numbers order by n")
	showRows("empty", db, "select * from demo.numbers where n > 9")
	flat := "yes, small, big, real, double, price, day, clock, at, at_utc, text, bytes"
	showRows("types", db, "select id, "+flat+" from demo.types order by id")
	for _, column := range []string{"list", "map", "struct", "four"} {
		showRows(column, db, "select \""+column+"\" from demo.types where id = 1")
	}
	showRows("nothing", db, "select * from demo.nothing")
	showRows("syntax", db, "selec 1")
	if err := parameters(db); err != nil {
		return err
	}
	return cancel(db)
}

func parameters(db *sql.DB) error {
	statement, err := db.Prepare("select n from demo.numbers where n > ? and label = ?")
	if err != nil {
		return err
	}
	defer statement.Close()
	found := []int64{}
	for _, values := range [][]any{{int64(1), "two"}, {int64(4), "five"}, {int64(3), "four"}} {
		var n int64
		if err := statement.QueryRow(values...).Scan(&n); err != nil {
			return err
		}
		found = append(found, n)
	}
	show("prepared", found)
	showRows("double", db, "select id from demo.types where double = ?", -1.25e300)
	showRows("boolean", db, "select id from demo.types where yes = ?", true)
	showRows("timestamp", db, "select id from demo.types where at < ?", time.Now())
	return nil
}

func cancel(db *sql.DB) error {
	from := "demo.numbers t0"
	for i := 1; i < 12; i++ {
		from += fmt.Sprintf(", demo.numbers t%d", i)
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	rows, err := db.QueryContext(ctx, "select t0.n, t2.label as go from "+from)
	if err != nil {
		return err
	}
	defer rows.Close()
	rows.Next()
	stop()
	read := 1
	for rows.Next() {
		read++
	}
	show("cancel", map[string]any{"read": read, "error": fmt.Sprint(rows.Err())})
	showRows("after_cancel", db, "select 1 as one")
	return nil
}

func rowsOf(db *sql.DB, query string, args ...any) ([]map[string]any, error) {
	rows, err := db.Query(query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	names, err := rows.Columns()
	if err != nil {
		return nil, err
	}
	found := []map[string]any{}
	for rows.Next() {
		values := make([]any, len(names))
		pointers := make([]any, len(names))
		for i := range values {
			pointers[i] = &values[i]
		}
		if err := rows.Scan(pointers...); err != nil {
			return nil, err
		}
		row := map[string]any{}
		for i, name := range names {
			row[strings.ToLower(name)] = plain(values[i])
		}
		found = append(found, row)
	}
	return found, rows.Err()
}

func plain(value any) any {
	switch v := value.(type) {
	case []byte:
		return hex.EncodeToString(v)
	case time.Time:
		return v.UTC().Format(time.RFC3339Nano)
	case float64:
		return fmt.Sprintf("%g", v)
	case float32:
		return fmt.Sprintf("%g", v)
	}
	return value
}
