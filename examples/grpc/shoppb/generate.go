// Package shoppb is the API of the gRPC example.
package shoppb

// The package's path is given here, and not in shop.proto, because what is generated would
// have it among bytes, where it cannot be changed.
//go:generate protoc --go_out=. --go_opt=paths=source_relative,Mshop.proto=github.com/fleetcall/fleetcall/examples/grpc/shoppb --go-grpc_out=. --go-grpc_opt=paths=source_relative,Mshop.proto=github.com/fleetcall/fleetcall/examples/grpc/shoppb shop.proto
