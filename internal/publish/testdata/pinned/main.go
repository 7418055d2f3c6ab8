// A program that has chosen the versions of its modules, and keeps them.
package main

import (
	"fmt"

	"github.com/jackc/pgx/v5"
	"go.opentelemetry.io/otel"
	"google.golang.org/grpc"
)

func main() {
	fmt.Println(pgx.ErrNoRows, otel.Version(), grpc.Version)
}
