package coalescetest

import "github.com/fleetcall/fleetcall/coalesce"

// encode and decode are what a result goes through on its way to another replica.
func encode[V any](v V) ([]byte, error) { return coalesce.JSON[V]().Marshal(v) }

func decode[V any](data []byte) (V, error) { return coalesce.JSON[V]().Unmarshal(data) }

// check says why the results would not arrive as they were sent, or nil.
func check[V any]() error { return coalesce.JSON[V]().(coalesce.Checker).Check() }

// remoteError is what an error goes through on its way to another replica.
func remoteError(err error) error { return coalesce.NewRemoteError(err) }
