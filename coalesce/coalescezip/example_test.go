package coalescezip_test

import (
	"fmt"
	"strings"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/coalescezip"
)

type page struct{ HTML string }

func ExampleZstd() {
	codec := coalescezip.Zstd(coalesce.JSON[page]())
	data, err := codec.Marshal(page{strings.Repeat("<li>Keyboard</li>", 1000)})
	if err != nil {
		fmt.Println(err)
		return
	}
	got, err := codec.Unmarshal(data)
	fmt.Println(codec.Name(), len(data) < 200, len(got.HTML), err)
	// Output: zstd+json true 17000 <nil>
}

func ExampleS2() {
	codec := coalescezip.S2(coalesce.Raw[[]byte](), coalescezip.WithLimit(1<<20))
	_, err := codec.Marshal(make([]byte, 2<<20))
	fmt.Println(codec.Name(), err)
	// Output: s2+raw fleetcall: the result is larger uncompressed than the limit: it has 2097152 bytes, and the limit is 1048576
}
