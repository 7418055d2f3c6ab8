package coalesce_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"reflect"
	"slices"
	"testing"

	"github.com/fleetcall/fleetcall/coalesce"
)

// FuzzCodecs decodes bytes from another replica, or from whoever else can write
// to its Redis.
func FuzzCodecs(f *testing.F) {
	f.Add([]byte(`{"id":1,"name":"Lamp","price":9.5,"description":null,"tags":["a"],"labels":{"b":18446744073709551615},"image":"AQI="}`))
	f.Add([]byte(`{"id":2147483648}`))
	f.Add([]byte(`{"name":"\ud800","price":-0}`))
	f.Add([]byte(`null`))
	f.Add([]byte(`{"tags":[`))
	f.Add([]byte("\xff\x00"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if got, err := coalesce.Raw[[]byte]().Unmarshal(data); err != nil || !bytes.Equal(got, data) {
			t.Fatalf("raw: %q became %q, %v", data, got, err)
		}
		_, _ = coalesce.Gob[*product]().Unmarshal(data) // must not panic
		codec := coalesce.JSON[product]()
		p, err := codec.Unmarshal(data)
		if err != nil {
			return
		}
		if !json.Valid(data) {
			t.Fatalf("%q is accepted", data)
		}
		again, err := codec.Marshal(p)
		if err != nil {
			t.Fatalf("%q became %+v, which cannot be encoded: %v", data, p, err)
		}
		if same, err := codec.Unmarshal(again); err != nil || !reflect.DeepEqual(same, p) {
			t.Fatalf("%+v became %+v, %v", p, same, err)
		}
	})
}

// FuzzRemoteError makes an error of what another replica says of one.
func FuzzRemoteError(f *testing.F) {
	f.Add("no such product", "coalesce_test.errNotFound", "of a newer version")
	f.Add("", "", "")
	f.Add("late", "context.DeadlineExceeded", "fleetcall.ErrFlightTimeout")
	f.Add("twice", "coalesce_test.errLocked", "coalesce_test.errLocked")
	f.Fuzz(func(t *testing.T, message, first, second string) {
		err := &coalesce.RemoteError{Message: message, Names: []string{first, second}}
		if err.Error() != message {
			t.Fatalf("message %q became %q", message, err)
		}
		names := coalesce.ErrorNames(err)
		for name, known := range registered {
			named := first == name || second == name
			if errors.Is(err, known) != named || slices.Contains(names, name) != named {
				t.Fatalf("%q, %q: errors.Is(%s) is %v, names %q", first, second, name, !named, names)
			}
		}
		if slices.Contains(names, "fleetcall.ErrFlightTimeout") && !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal("a flight timeout is an exceeded deadline everywhere")
		}
	})
}
