package coalescegrpc_test

import (
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/fleetcall/fleetcall/coalesce/coalescegrpc"
)

func ExampleProto() {
	codec := coalescegrpc.Proto[*durationpb.Duration]()
	data, err := codec.Marshal(durationpb.New(90 * time.Second))
	if err != nil {
		fmt.Println(err)
		return
	}
	got, err := codec.Unmarshal(data)
	fmt.Println(codec.Name(), len(data), got.AsDuration(), err)
	// Output: proto 2 1m30s <nil>
}
