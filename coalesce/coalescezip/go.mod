module github.com/fleetcall/fleetcall/coalesce/coalescezip

go 1.26.0

require (
	github.com/fleetcall/fleetcall/coalesce v0.0.0
	github.com/klauspost/compress v1.20.3
)
