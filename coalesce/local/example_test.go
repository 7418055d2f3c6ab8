package local_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/local"
)

func ExampleGroup_Do() {
	var products local.Group[int, string]
	name, role, err := products.Do(context.Background(), 7, func(ctx context.Context) (string, error) {
		return "Keyboard", nil // a slow query in real life
	})
	fmt.Println(name, role, err)
	// Output: Keyboard leader <nil>
}

// A caller that has waited long enough goes away; with nobody else waiting,
// that cancels the query.
func ExampleGroup_Do_timeout() {
	var products local.Group[int, string]
	cancelled := make(chan struct{})

	ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
	defer cancel()
	_, _, err := products.Do(ctx, 7, func(ctx context.Context) (string, error) {
		<-ctx.Done()
		close(cancelled)
		return "", ctx.Err()
	})
	fmt.Println("caller:", err)
	<-cancelled
	fmt.Println("query cancelled")
	// Output:
	// caller: context deadline exceeded
	// query cancelled
}

func ExampleGroup_DoChan() {
	var products local.Group[int, string]
	row := make(chan string)
	query := func(context.Context) (string, error) { return <-row, nil }

	first := products.DoChan(context.Background(), 7, query)
	second := products.DoChan(context.Background(), 7, query)
	row <- "Keyboard" // one row answers both
	for _, ch := range []<-chan local.Result[string]{first, second} {
		r := <-ch
		fmt.Println(r.Val, r.Role)
	}
	// Output:
	// Keyboard leader
	// Keyboard local-follower
}

// A writer forgets the key, so that whoever reads after it does not join a
// query that may have read the old row.
func ExampleGroup_Forget() {
	var products local.Group[int, string]
	row := make(chan string)
	before := products.DoChan(context.Background(), 7, func(context.Context) (string, error) { return <-row, nil })

	products.Forget(7)
	after, role, _ := products.Do(context.Background(), 7, func(context.Context) (string, error) { return "new row", nil })
	fmt.Println(after, role)

	row <- "old row"
	fmt.Println((<-before).Val)
	// Output:
	// new row leader
	// old row
}

func ExampleGroup_Stats() {
	var products local.Group[int, string]
	row := make(chan string)
	query := func(context.Context) (string, error) { return <-row, nil }
	var callers []<-chan local.Result[string]
	for range 4 {
		callers = append(callers, products.DoChan(context.Background(), 7, query))
	}
	row <- "Keyboard"
	for _, ch := range callers {
		<-ch
	}
	st := products.Stats()
	fmt.Printf("%d requests, %d leader, hit rate %.0f%%\n", st.Requests, st.Leaders, 100*st.HitRate())
	// Output: 4 requests, 1 leader, hit rate 75%
}

// A panic of the function reaches the caller with the stack it began on.
func ExampleGroup_Do_panic() {
	errCorrupt := errors.New("corrupt row")
	var products local.Group[int, string]
	defer func() {
		e := recover().(*coalesce.PanicError)
		fmt.Println(errors.Is(e, errCorrupt), len(e.Stack) > 0)
	}()
	products.Do(context.Background(), 7, func(context.Context) (string, error) { panic(errCorrupt) })
	// Output: true true
}

func ExampleTier() {
	var tier coalesce.Group[string] = coalesce.Off[string]{}
	if merging := true; merging {
		tier = local.Tier(new(local.Group[string, string]))
	}
	name, role, err := tier.Do(context.Background(), "product:7", func(context.Context) (string, error) {
		return "Keyboard", nil
	})
	fmt.Println(name, role, err)
	// Output: Keyboard leader <nil>
}

// A hundred keys are one call of the function for those that nobody else is fetching.
func ExampleGroup_DoMany() {
	var products local.Group[int, string]
	results, err := products.DoMany(context.Background(), []int{7, 8, 5000}, func(ctx context.Context, ids []int) (map[int]string, error) {
		fmt.Println("SELECT … WHERE id = ANY", ids)
		return map[int]string{7: "Keyboard", 8: "Mouse"}, nil
	})
	fmt.Println(results[7].Val, results[8].Role, results[5000].Err, err)
	// Output:
	// SELECT … WHERE id = ANY [7 8 5000]
	// Keyboard leader fleetcall: the function returned no result for this key <nil>
}
