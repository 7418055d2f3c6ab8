package coalesce

import (
	"encoding/json"
	"fmt"
)

// Codec turns results into bytes and back. Name travels with the bytes: a
// replica that is told another name than its own codec's does not decode them
// and runs its own function instead, so that changing the codec in a rolling
// upgrade breaks no call. Change the name when the bytes change.
type Codec interface {
	Name() string
	Marshal(v any) ([]byte, error)
	// Unmarshal decodes data into the value v points to. It may keep data.
	Unmarshal(data []byte, v any) error
}

var (
	// JSON is encoding/json.
	JSON Codec = jsonCodec{}
	// Raw passes []byte results through without copying them. Callers share
	// the bytes and must not change them.
	Raw Codec = rawCodec{}
)

type jsonCodec struct{}

func (jsonCodec) Name() string                       { return "json" }
func (jsonCodec) Marshal(v any) ([]byte, error)      { return json.Marshal(v) }
func (jsonCodec) Unmarshal(data []byte, v any) error { return json.Unmarshal(data, v) }

type rawCodec struct{}

func (rawCodec) Name() string { return "raw" }

func (rawCodec) Marshal(v any) ([]byte, error) {
	b, ok := v.([]byte)
	if !ok {
		return nil, fmt.Errorf("fleetcall: the raw codec carries []byte, not %T", v)
	}
	return b, nil
}

func (rawCodec) Unmarshal(data []byte, v any) error {
	b, ok := v.(*[]byte)
	if !ok {
		return fmt.Errorf("fleetcall: the raw codec carries []byte, not %T", v)
	}
	*b = data
	return nil
}
