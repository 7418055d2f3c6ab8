module github.com/fleetcall/fleetcall/coalesce/coalescegrpc

go 1.26.0

require (
	github.com/fleetcall/fleetcall/coalesce v0.0.0
	google.golang.org/protobuf v1.36.12
)
