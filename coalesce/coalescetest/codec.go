package coalescetest

import "encoding/json"

// encode and decode are what a result goes through on its way to another replica.
func encode[V any](v V) ([]byte, error) { return json.Marshal(v) }

func decode[V any](data []byte) (v V, err error) { return v, json.Unmarshal(data, &v) }
