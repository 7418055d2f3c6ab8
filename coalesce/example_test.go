package coalesce_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/fleetcall/fleetcall/coalesce"
)

var ErrSoldOut = errors.New("sold out")

// Every replica registers the error under the same name. A caller whose
// result comes from another replica then finds it as if it came from its own.
func ExampleRegisterError() {
	coalesce.RegisterError("shop.ErrSoldOut", ErrSoldOut)

	// On the replica that runs the function:
	err := fmt.Errorf("product 7: %w", ErrSoldOut)
	names := coalesce.ErrorNames(err)

	// On the replica that waits for it:
	remote := &coalesce.RemoteError{Message: err.Error(), Names: names}
	fmt.Println(remote, errors.Is(remote, ErrSoldOut))
	// Output: product 7: sold out true
}

func ExampleOff() {
	var group coalesce.Group[string] = coalesce.Off[string]{}
	name, role, err := group.Do(context.Background(), "product:7", func(context.Context) (string, error) {
		return "Keyboard", nil
	})
	fmt.Println(name, role, err)
	// Output: Keyboard leader <nil>
}

func ExampleRole_String() {
	fmt.Println(coalesce.RemoteFollower)
	// Output: remote-follower
}
