package main

import (
	"context"
	"fmt"
	"io"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	"github.com/fleetcall/fleetcall/coalesce/coalescegrpc"
	"github.com/fleetcall/fleetcall/examples/grpc/shoppb"
)

// get asks the replica at the address for a product, and prints how the answer came about.
func get(ctx context.Context, w io.Writer, address, id string) error {
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer conn.Close()
	var header metadata.MD
	product, err := shoppb.NewProductsClient(conn).Get(ctx, &shoppb.GetRequest{Id: id}, grpc.Header(&header))
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(w, header.Get(coalescegrpc.RoleKey)[0], product.GetName(), product.GetPrice())
	return err
}
