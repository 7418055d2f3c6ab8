package coalesce_test

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/fleetcall/fleetcall/coalesce"
)

var ErrSoldOut = errors.New("sold out")

// Every replica registers the error under the same name. A caller whose
// result comes from another replica then finds it as if it came from its own.
func ExampleRegisterError() {
	coalesce.RegisterError("shop.ErrSoldOut", ErrSoldOut)

	// On the replica that runs the function:
	err := fmt.Errorf("product 7: %w", ErrSoldOut)

	// On the replica that waits for it:
	remote := coalesce.NewRemoteError(err)
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

// OutOfStock says how many are left.
type OutOfStock struct {
	Product string
	Left    int
}

func (e *OutOfStock) Error() string { return fmt.Sprintf("%s: only %d left", e.Product, e.Left) }

// A registered type keeps its fields on the way to the other replicas.
func ExampleRegisterErrorType() {
	coalesce.RegisterErrorType[*OutOfStock]("shop.OutOfStock")

	// What another replica gets of the error:
	err := fmt.Errorf("ordering: %w", &OutOfStock{"Keyboard", 2})
	var remote error = coalesce.NewRemoteError(err)

	var out *OutOfStock
	fmt.Println(errors.As(remote, &out), out.Left, remote)
	// Output: true 2 ordering: Keyboard: only 2 left
}

// A codec says before the first call what it would lose of a result.
func ExampleJSON() {
	type product struct {
		Name  string
		price float64
	}
	err := coalesce.JSON[product]().(coalesce.Checker).Check()
	fmt.Println(err, product{"Keyboard", 49}.price)
	// Output: JSON would not carry coalesce_test.product.price as it is: it is not exported; export it, give a type around it MarshalJSON and UnmarshalJSON, use another codec, or accept the loss with AllowLossy() 49
}

// Gob carries what JSON does not, such as a number that is infinite.
func ExampleGob() {
	type route struct{ Kilometres float64 }
	unreachable := route{math.Inf(1)}

	_, err := coalesce.JSON[route]().Marshal(unreachable)
	fmt.Println(err)

	codec := coalesce.Gob[route]()
	data, err := codec.Marshal(unreachable)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(codec.Unmarshal(data))
	// Output:
	// json: unsupported value: +Inf
	// {+Inf} <nil>
}

// Raw lets bytes travel as they are: of a page that is rendered already, for example.
// It is the default of a group of []byte.
func ExampleRaw() {
	page := []byte("<p>caf\xe9</p>") // Latin-1: any bytes will do
	data, err := coalesce.Raw[[]byte]().Marshal(page)
	fmt.Printf("%q %v %v\n", data, err, &data[0] == &page[0]) // not copied
	// Output: "<p>caf\xe9</p>" <nil> true
}

// Some keys of a batch fail, and the others have their values.
func ExampleBatchError() {
	results, err := coalesce.Off[string]{}.DoMany(context.Background(), []string{"7", "8"}, func(context.Context, []string) (map[string]string, error) {
		return map[string]string{"8": "Mouse"}, coalesce.BatchError{"7": ErrSoldOut}
	})
	fmt.Println(results["7"].Err, results["8"].Val, err)
	// Output: sold out Mouse <nil>
}

// The resolvers of a request ask for one product each, and share a query.
func ExampleLoader() {
	query := func(_ context.Context, ids []string) (map[string]string, error) {
		fmt.Println("SELECT … WHERE id = ANY", ids)
		return map[string]string{"7": "Keyboard", "8": "Mouse"}, nil
	}
	request := context.Background()
	loader, err := coalesce.NewLoader(request, coalesce.Off[string]{}, query, coalesce.CollectUntilFlush())
	if err != nil {
		fmt.Println(err)
		return
	}
	keyboard, mouse := loader.Ask("7"), loader.Ask("8")
	loader.Flush()
	fmt.Println(keyboard(request))
	fmt.Println(mouse(request))
	// Output:
	// SELECT … WHERE id = ANY [7 8]
	// Keyboard leader <nil>
	// Mouse leader <nil>
}
