package coalesceotel_test

import (
	"context"
	"fmt"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
	"go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/fleetcall/fleetcall/coalesce/coalesceotel"
	"github.com/fleetcall/fleetcall/coalesce/distributed"
)

// A program that has set up OpenTelemetry's global providers needs no option;
// here, spans stay in memory.
func Example() {
	server, _ := miniredis.Run() // a stand-in; use your Redis
	defer server.Close()
	client := redis.NewClient(&redis.Options{Addr: server.Addr()})
	defer client.Close()

	spans := tracetest.NewInMemoryExporter()
	tracers := trace.NewTracerProvider(trace.WithSyncer(spans))
	defer tracers.Shutdown(context.Background())
	observer, err := coalesceotel.NewObserver(coalesceotel.WithTracerProvider(tracers))
	if err != nil {
		fmt.Println(err)
		return
	}
	group, err := distributed.New[string](client, distributed.WithObserver(observer))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer group.Close(context.Background())

	_, _, _ = group.Do(context.Background(), "42", func(ctx context.Context) (string, error) {
		return "row", nil // a span started from ctx is a child of the function's
	})
	for _, span := range spans.GetSpans() {
		fmt.Println(span.Name)
	}
	// Output:
	// fleetcall function
	// fleetcall flight
}
