// A program that uses the first tier.
package main

import (
	"context"
	"fmt"

	"github.com/fleetcall/fleetcall/coalesce/local"
)

func main() {
	var products local.Group[int, string]
	name, role, err := products.Do(context.Background(), 7, func(context.Context) (string, error) { return "Teapot", nil })
	fmt.Println(name, role, err)
}
