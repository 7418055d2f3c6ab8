package coalescetest

import (
	"encoding/json"

	"github.com/fleetcall/fleetcall/coalesce"
)

// encode and decode are what a result goes through on its way to another replica.
func encode[V any](v V) ([]byte, error) { return json.Marshal(v) }

func decode[V any](data []byte) (v V, err error) { return v, json.Unmarshal(data, &v) }

// remoteError is what an error goes through on its way to another replica.
func remoteError(err error) error {
	return &coalesce.RemoteError{Message: err.Error(), Names: coalesce.ErrorNames(err)}
}
