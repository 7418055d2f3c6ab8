package coalescetest_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/coalescetest"
)

type Product struct{ Name string }

// errNoProduct is known on every replica.
var errNoProduct = errors.New("no such product")

func init() { coalesce.RegisterError("example.errNoProduct", errNoProduct) }

// productHandler is the code under test: it answers GET /product/{id}.
func productHandler(products coalesce.Group[Product], query func(ctx context.Context, id string) (Product, error)) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /product/{id}", func(w http.ResponseWriter, r *http.Request) {
		id := r.PathValue("id")
		product, role, err := products.Do(r.Context(), id, func(ctx context.Context) (Product, error) { return query(ctx, id) })
		w.Header().Set("X-Coalesce-Role", role.String())
		switch {
		case errors.Is(err, errNoProduct):
			http.Error(w, "unknown product", http.StatusNotFound)
		case errors.Is(err, coalesce.ErrUnavailable), errors.Is(err, coalesce.ErrPoisoned):
			http.Error(w, "try again later", http.StatusServiceUnavailable)
		case err != nil:
			http.Error(w, "internal error", http.StatusInternalServerError)
		default:
			fmt.Fprintln(w, product.Name)
		}
	})
	return mux
}

func query(context.Context, string) (Product, error) { return Product{"Keyboard"}, nil }

// get returns what the handler answers, in one line.
func get(h http.Handler) string {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("GET", "/product/7", nil))
	return fmt.Sprintf("%d %s: %s", w.Code, w.Header().Get("X-Coalesce-Role"), w.Body)
}

// A lone replica of a fleet leads.
func Example() {
	fleet := coalescetest.NewFleet()
	products := coalescetest.NewGroup[Product](fleet, "products")
	fmt.Print(get(productHandler(products, query)))
	// Output: 200 leader: Keyboard
}

// The caller follows another replica, and gets its result.
func ExampleGroup_LeadElsewhere() {
	fleet := coalescetest.NewFleet()
	products := coalescetest.NewGroup[Product](fleet, "products")
	handler := productHandler(products, query)

	other := products.LeadElsewhere("7")
	answer := make(chan string)
	go func() { answer <- get(handler) }()
	other.Await(1) // the handler's replica follows
	other.Return(Product{"Keyboard of another replica"}, nil)
	fmt.Print(<-answer)
	// Output: 200 remote-follower: Keyboard of another replica
}

// The other replica's function fails. A registered error is recognised here.
func ExampleLeader_Return() {
	fleet := coalescetest.NewFleet()
	products := coalescetest.NewGroup[Product](fleet, "products")
	handler := productHandler(products, query)

	other := products.LeadElsewhere("7")
	answer := make(chan string)
	go func() { answer <- get(handler) }()
	other.Await(1)
	other.Return(Product{}, fmt.Errorf("product 7: %w", errNoProduct))
	fmt.Print(<-answer)
	// Output: 404 remote-follower: unknown product
}

// The other replica's function panics. That must not be one's own panic.
func ExampleLeader_Panic() {
	fleet := coalescetest.NewFleet()
	products := coalescetest.NewGroup[Product](fleet, "products")
	handler := productHandler(products, query)

	other := products.LeadElsewhere("7")
	answer := make(chan string)
	go func() { answer <- get(handler) }()
	other.Await(1)
	other.Panic("index out of range")
	fmt.Print(<-answer)
	// Output: 500 remote-follower: internal error
}

// The other replica is killed while it leads: the caller takes over.
func ExampleLeader_Die() {
	fleet := coalescetest.NewFleet()
	products := coalescetest.NewGroup[Product](fleet, "products")
	handler := productHandler(products, query)

	other := products.LeadElsewhere("7")
	answer := make(chan string)
	go func() { answer <- get(handler) }()
	other.Await(1)
	other.Die()
	fmt.Print(<-answer)
	// Output: 200 leader: Keyboard
}

// Redis cannot be used: the caller runs its own function.
func ExampleFleet_StopRedis() {
	fleet := coalescetest.NewFleet()
	products := coalescetest.NewGroup[Product](fleet, "products")
	handler := productHandler(products, query)

	fleet.StopRedis()
	fmt.Print(get(handler))
	fmt.Println(products.Forget(context.Background(), "7"))
	fleet.StartRedis()
	fmt.Print(get(handler))
	// Output:
	// 200 fallback: Keyboard
	// fleetcall: forgetting keys on other replicas: fleetcall: Redis cannot be used
	// 200 leader: Keyboard
}

// Redis cannot be used, and the Group is set to refuse calls then.
func ExampleFailClosed() {
	fleet := coalescetest.NewFleet()
	products := coalescetest.NewGroup[Product](fleet, "products", coalescetest.FailClosed())
	fleet.StopRedis()
	fmt.Print(get(productHandler(products, query)))
	// Output: 503 none: try again later
}

// A flight of the key has finished within MaxAge. Who changes the row forgets it.
func ExampleGroup_Cache() {
	fleet := coalescetest.NewFleet()
	products := coalescetest.NewGroup[Product](fleet, "products")
	handler := productHandler(products, query)

	products.Cache("7", Product{"Keyboard of a moment ago"})
	fmt.Print(get(handler))
	products.Forget(context.Background(), "7")
	fmt.Print(get(handler))
	// Output:
	// 200 cached: Keyboard of a moment ago
	// 200 leader: Keyboard
}

// The leaders of the key died one after another.
func ExampleGroup_Poison() {
	fleet := coalescetest.NewFleet()
	products := coalescetest.NewGroup[Product](fleet, "products")
	products.Poison("7")
	fmt.Print(get(productHandler(products, query)))
	// Output: 503 none: try again later
}

// Ten requests of one replica, while its query runs, are answered by that query.
func ExampleGroup_Waiting() {
	fleet := coalescetest.NewFleet()
	products := coalescetest.NewGroup[Product](fleet, "products")
	queries, rows := 0, make(chan Product)
	handler := productHandler(products, func(context.Context, string) (Product, error) {
		queries++
		return <-rows, nil
	})

	answers := make(chan string)
	for range 10 {
		go func() { answers <- get(handler) }()
	}
	for products.Waiting() < 10 {
		runtime.Gosched()
	}
	rows <- Product{"Keyboard"}
	for range 10 {
		<-answers
	}
	fmt.Println("queries:", queries)
	// Output: queries: 1
}
