package coalescezip_test

import (
	"bytes"
	"testing"

	"go.uber.org/goleak"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/coalescezip"
)

func TestNoGoroutineIsLeftThoughNothingIsClosed(t *testing.T) {
	defer goleak.VerifyNone(t)
	for _, codec := range []coalesce.Codec[[]byte]{
		coalescezip.Zstd(coalesce.Raw[[]byte](), coalescezip.WithLevel(19)),
		coalescezip.S2(coalesce.Raw[[]byte]()),
	} {
		want := bytes.Repeat([]byte("a page of text, "), 1<<17)
		data, err := codec.Marshal(want)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := codec.Unmarshal(data); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %d bytes became %d, %v", codec.Name(), len(want), len(got), err)
		}
	}
}
